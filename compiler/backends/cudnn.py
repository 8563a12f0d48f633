"""cuDNN, NVIDIA's library of convolutions, by torch's operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.backends import _patterns, _torch
from hybridc.compiler.backends._library import GpuLibrary
from hybridc.compiler.backends._patterns import Convolution
from hybridc.compiler.backends._torch import Head, Tensor
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.subgraph import Subgraph


@dataclass(frozen=True)
class Cudnn(GpuLibrary):
    """Convolutions by cuDNN, channels last, with bias, residual and ReLU where it joins them."""

    def head(self, graph: Subgraph) -> Head | NotApplicable:
        """A convolution with the same padding on both sides."""
        conv = _patterns.convolution(graph)
        return conv if isinstance(conv, NotApplicable) else _head(conv, graph)


def _head(conv: Convolution, graph: Subgraph) -> Head:
    data, weight = graph.steps[0].operands
    options = conv.strides, conv.padding, conv.dilation, conv.groups
    behind = conv.epilogue
    # cuDNN's joined kernels are all with ReLU, and want a bias.
    joined = behind.relu and behind.bias is not None
    steps = behind.steps if joined else 1 + (behind.bias is not None)

    def prepare(constants: Sequence[Tensor | None]) -> Any:
        import torch

        return torch, _torch.bias_row(constants, behind.bias, graph)

    def run(values: Sequence[Tensor], prepared: Any, result: Tensor) -> Tensor:
        torch, row = prepared
        image, filters = (values[number].permute(0, 3, 1, 2) for number in (data, weight))
        if not joined:
            convolved = torch.conv2d(image, filters, row, *options)
        elif behind.other is None:
            convolved = torch.cudnn_convolution_relu(image, filters, row, *options)
        else:
            other = values[behind.other].permute(0, 3, 1, 2)
            convolved = torch.cudnn_convolution_add_relu(image, filters, other, 1.0, row, *options)
        return convolved.permute(0, 2, 3, 1)

    return Head(steps, prepare, run)
