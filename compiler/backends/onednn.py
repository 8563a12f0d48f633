"""oneDNN, Intel's library for CPUs, by torch's operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from hybridc.compiler.backends import _patterns, _torch
from hybridc.compiler.backends._library import TorchLibrary
from hybridc.compiler.backends._patterns import Convolution
from hybridc.compiler.backends._torch import Head, Tensor
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.subgraph import Subgraph

_FLOAT = ("float32",)
_BYTES = ("uint8", "int8", "int32", "float32")
_SIGN = 128  # what takes unsigned bytes to signed ones


@dataclass(frozen=True)
class Onednn(TorchLibrary):
    """Products, convolutions and attention by oneDNN, as torch brings it.

    Weights are brought into the library's order once, with the first call; bias, residual and ReLU
    are computed with the product.  Bytes are multiplied exactly, in int32.
    """

    def head(self, graph: Subgraph) -> Head | NotApplicable:
        """A product, a convolution or attention."""
        return _head(graph)

    def types(self, graph: Subgraph) -> Sequence[str]:
        """fp32, and bytes in products that stay integers."""
        return _BYTES if graph.steps[0].dtype == "int32" else _FLOAT


def _head(graph: Subgraph) -> Head | NotApplicable:
    if "nn.softmax" in graph.operators:
        return _torch.attention_head(graph)
    if graph.steps[0].operator == "matmul":
        return _product(graph)
    conv = _patterns.convolution(graph)
    if isinstance(conv, NotApplicable):
        return conv
    if graph.steps[0].dtype != "float32":
        return NotApplicable("its convolution is of bytes")
    constant = graph.operands[graph.steps[0].operands[1]].constant
    return _convolution(conv, graph) if constant else _convolution_of_inputs(conv, graph)


def _convolution_of_inputs(conv: Convolution, graph: Subgraph) -> Head:
    """An image and weights that no other call has: these are not brought into any order."""

    def prepare(_: Sequence[Tensor | None]) -> Any:
        import torch

        return torch.conv2d

    def run(values: Sequence[Tensor], convolve: Any, result: Tensor) -> Tensor:
        image, filters = (values[n].permute(0, 3, 1, 2) for n in graph.steps[0].operands)
        convolved = convolve(
            image, filters, None, conv.strides, conv.padding, conv.dilation, conv.groups
        )
        return convolved.permute(0, 2, 3, 1)

    return Head(1, prepare, run)


def _convolution(conv: Convolution, graph: Subgraph) -> Head:
    data, weight = graph.steps[0].operands
    batch, height, width, channels = graph.operands[data].shape
    options = conv.padding, conv.strides, conv.dilation, conv.groups
    behind = conv.epilogue
    activation = "relu" if behind.relu else "none"

    def prepare(constants: Sequence[Tensor | None]) -> Any:
        import torch

        held = constants[weight]
        assert held is not None
        size = (batch, channels, height, width)
        plain = held.permute(0, 3, 1, 2)
        packed = torch.ops.mkldnn._reorder_convolution_weight(plain, *options, size)
        call = torch.ops.mkldnn._convolution_pointwise
        bias = _torch.bias_row(constants, behind.bias, graph)
        return call if behind.other is None else call.binary, packed, bias

    def run(values: Sequence[Tensor], prepared: Any, result: Tensor) -> Tensor:
        call, packed, bias = prepared
        image = values[data].permute(0, 3, 1, 2)
        if behind.other is None:
            convolved = call(image, packed, bias, *options, activation, [], "")
        else:
            other = values[behind.other].permute(0, 3, 1, 2)
            joined: tuple[Any, ...] = ("add", 1.0, "relu" if behind.relu else None, [], None)
            convolved = call(image, other, packed, bias, *options, *joined)
        return convolved.permute(0, 2, 3, 1)

    return Head(behind.steps, prepare, run)


def _product(graph: Subgraph) -> Head | NotApplicable:
    first = graph.steps[0]
    left, right = (graph.operands[number] for number in first.operands)
    types = (left.dtype, right.dtype, first.dtype)
    constant = right.constant and len(right.shape) == 2 and not left.constant
    if types == ("uint8", "int8", "int32") and constant and len(left.shape) >= 2:
        return _bytes(graph)
    if types != ("float32",) * 3:
        return NotApplicable(f"it multiplies {left.dtype} by {right.dtype}")
    if constant and len(left.shape) >= 2:
        return _dense(graph)
    return _torch.matmul_head(graph)


def _dense(graph: Subgraph) -> Head:
    """Rows by a matrix of weights, in the order that the library found best."""
    data, weight = graph.steps[0].operands
    behind = _patterns.epilogue(graph)
    rows = prod(graph.operands[data].shape[:-1])
    activation = "relu" if behind.relu else "none"

    def prepare(constants: Sequence[Tensor | None]) -> Any:
        import torch

        held = constants[weight]
        assert held is not None
        packed = torch.ops.mkldnn._reorder_linear_weight(held.t().contiguous(), rows)
        call = torch.ops.mkldnn._linear_pointwise
        bias = _torch.bias_row(constants, behind.bias, graph)
        return call if behind.other is None else call.binary, packed, bias

    steps = behind.steps if behind.other is None else behind.steps - behind.relu

    def run(values: Sequence[Tensor], prepared: Any, result: Tensor) -> Tensor:
        call, packed, bias = prepared
        if behind.other is not None:
            return call(values[data], values[behind.other], packed, bias, "add")
        return call(values[data], packed, bias, activation, [], "")

    return Head(steps, prepare, run)


def _bytes(graph: Subgraph) -> Head:
    """Rows of unsigned bytes: as signed ones, with what that takes off added behind the product."""
    data, weight = graph.steps[0].operands
    depth = graph.operands[data].shape[-1]
    columns = graph.operands[weight].shape[1]

    def prepare(constants: Sequence[Tensor | None]) -> Any:
        import torch

        held = constants[weight]
        assert held is not None
        sums = held.sum(0, dtype=torch.int32) * _SIGN
        return vars(torch)["_int_mm"], held.contiguous(), sums, torch.int8

    def run(values: Sequence[Tensor], prepared: Any, result: Tensor) -> Tensor:
        multiply, held, sums, signed = prepared
        rows = values[data].reshape(-1, depth)
        product = multiply((rows ^ _SIGN).view(signed), held)
        return product.add_(sums).reshape(*values[data].shape[:-1], columns)

    return Head(1, prepare, run)
