"""cuDNN, NVIDIA's library of convolutions, by torch's operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.backends import _cuda, _torch
from hybridc.compiler.backends._torch import Convolution, Head, Tensor, TorchCall
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.backend import Backend, Call
from hybridc.compiler.offload.subgraph import Subgraph
from hybridc.compiler.target import CUDA, Target


@dataclass(frozen=True)
class Cudnn(Backend):
    """Convolutions by cuDNN, channels last, with bias, residual and ReLU where it joins them."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)
    device: ClassVar[str] = CUDA
    overhead: ClassVar[float] = _cuda.OVERHEAD

    @classmethod
    def missing(cls) -> str:
        """Why torch computes nothing on a GPU here."""
        return _cuda.missing(super().missing())

    def supports(self, graph: Subgraph, target: Target) -> NotApplicable | None:
        """Take convolutions with the same padding on both sides."""
        conv = _torch.convolution(graph)
        if isinstance(conv, NotApplicable):
            return conv
        return _torch.unsupported(graph, _head(conv, graph).steps, _cuda.TYPES)

    def build(self, graph: Subgraph, threads: int) -> Call:
        """A call of torch's convolution."""
        conv = _torch.convolution(graph)
        if isinstance(conv, NotApplicable):
            raise ValueError(conv.reason)
        return TorchCall(graph, _head(conv, graph), threads)


def _head(conv: Convolution, graph: Subgraph) -> Head:
    data, weight = graph.steps[0].operands
    padding, strides, dilation, groups = conv.options
    # cuDNN's joined kernels are all with ReLU, and want a bias.
    joined = conv.relu and conv.bias is not None
    steps = conv.steps if joined else 1 + (conv.bias is not None)

    def prepare(constants: Sequence[Tensor | None]) -> Any:
        import torch

        row = None if conv.bias is None else constants[conv.bias]
        return torch, None if row is None else row.reshape(-1)

    def run(values: Sequence[Tensor], prepared: Any, result: Tensor) -> Tensor:
        torch, row = prepared
        image, filters = (values[number].permute(0, 3, 1, 2) for number in (data, weight))
        options = (strides, padding, dilation, groups)
        if not joined:
            made = torch.conv2d(image, filters, row, *options)
        elif conv.other is None:
            made = torch.cudnn_convolution_relu(image, filters, row, *options)
        else:
            other = values[conv.other].permute(0, 3, 1, 2)
            made = torch.cudnn_convolution_add_relu(image, filters, other, 1.0, row, *options)
        return made.permute(0, 2, 3, 1)

    return Head(steps, prepare, run)
