"""oneDNN, Intel's library for CPUs, by torch's operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from hybridc.compiler.backends import _torch
from hybridc.compiler.backends._library import TorchLibrary
from hybridc.compiler.backends._torch import Convolution, Head, Tensor
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
        found = _torch.attention(graph)
        whole = len(graph.steps)
        return found if isinstance(found, NotApplicable) else _torch.attention_head(found, whole)
    if graph.steps[0].operator == "matmul":
        return _product(graph)
    conv = _torch.convolution(graph)
    if isinstance(conv, NotApplicable):
        return conv
    if graph.steps[0].dtype != "float32":
        return NotApplicable("its convolution is of bytes")
    return _convolution(conv, graph)


def _convolution(conv: Convolution, graph: Subgraph) -> Head:
    data, weight = graph.steps[0].operands
    if not graph.operands[weight].constant:
        conv = Convolution(1, conv.options)
    batch, height, width, channels = graph.operands[data].shape
    padding, strides, dilation, groups = conv.options
    options = padding, strides, dilation, groups
    activation = "relu" if conv.relu else "none"

    def prepare(constants: Sequence[Tensor | None]) -> Any:
        import torch

        bias = None if conv.bias is None else constants[conv.bias]
        held = constants[weight]
        if held is None:
            return torch.ops.aten.conv2d, None, None
        size = (batch, channels, height, width)
        plain = held.permute(0, 3, 1, 2)
        packed = torch.ops.mkldnn._reorder_convolution_weight(plain, *options, size)
        call = torch.ops.mkldnn._convolution_pointwise
        flat = None if bias is None else bias.reshape(-1)
        return call if conv.other is None else call.binary, packed, flat

    def run(values: Sequence[Tensor], prepared: Any, result: Tensor) -> Tensor:
        call, packed, bias = prepared
        image = values[data].permute(0, 3, 1, 2)
        if packed is None:
            plain = values[weight].permute(0, 3, 1, 2)
            made = call(image, plain, None, strides, padding, dilation, groups)
        elif conv.other is None:
            made = call(image, packed, bias, *options, activation, [], "")
        else:
            other = values[conv.other].permute(0, 3, 1, 2)
            joined: tuple[Any, ...] = ("add", 1.0, "relu" if conv.relu else None, [], None)
            made = call(image, other, packed, bias, *options, *joined)
        return made.permute(0, 2, 3, 1)

    return Head(conv.steps, prepare, run)


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
    return _batched(graph)


def _dense(graph: Subgraph) -> Head:
    """Rows by a matrix of weights, in the order that the library found best."""
    data, weight = graph.steps[0].operands
    follow = _torch.following(graph)
    rows = prod(graph.operands[data].shape[:-1])
    activation = "relu" if follow.relu else "none"

    def prepare(constants: Sequence[Tensor | None]) -> Any:
        import torch

        bias = None if follow.bias is None else constants[follow.bias]
        held = constants[weight]
        assert held is not None
        packed = torch.ops.mkldnn._reorder_linear_weight(held.t().contiguous(), rows)
        call = torch.ops.mkldnn._linear_pointwise
        flat = None if bias is None else bias.reshape(-1)
        return call if follow.other is None else call.binary, packed, flat

    steps = follow.steps if follow.other is None else follow.steps - follow.relu

    def run(values: Sequence[Tensor], prepared: Any, result: Tensor) -> Tensor:
        call, packed, bias = prepared
        if follow.other is not None:
            return call(values[data], values[follow.other], packed, bias, "add")
        return call(values[data], packed, bias, activation, [], "")

    return Head(steps, prepare, run)


def _batched(graph: Subgraph) -> Head:
    """Products of two activations, right into the result's memory where nothing follows."""
    left, right = graph.steps[0].operands

    def run(values: Sequence[Tensor], matmul: Any, result: Tensor) -> Tensor:
        if len(graph.steps) == 1:
            return matmul(values[left], values[right], out=result)
        return matmul(values[left], values[right])

    def prepare(_: Sequence[Tensor | None]) -> Any:
        import torch

        return torch.matmul

    return Head(1, prepare, run)


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
