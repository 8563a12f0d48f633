"""Compute quantised convolutions and matrix products in 8-bit integers."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    Rule,
    constant,
    operator,
    rewrite,
    shape,
)
from hybridc.passes import _byte_tables, _integer_products, _quantization

op: Any = relax.op

# Operators that only move numbers, or choose the largest: the same on integers.
_MOVES = (
    "expand_dims",
    "nn.max_pool2d",
    "permute_dims",
    "reshape",
    "squeeze",
    "strided_slice",
    "take",
)


@dataclass(frozen=True)
class IntegerArithmetic(Pass):
    """Compute quantised convolutions and matrix products in 8-bit integers.

    A product of dequantised operands with constant weights becomes a product of uint8 by int8 into
    int32, with zero points and bias folded into one integer per output channel; a product of two
    activations is computed in 16 bits, or as a sum if it has a single row.  Operators that only
    move numbers run on the integers, and expensive functions between two tensors of bytes become
    tables. All other quantisation is written as arithmetic that fuses with its neighbours, rounding
    half to even as ONNX does; since the scales of a quantised result are multiplied in advance, a
    tie may round the other way.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every function of the graph."""
        for rule in (_unsigned, _integral):
            module = rewrite(module, rule)
        if context.target.gpu is None:  # whose products of 16 bits have no rule
            module = rewrite(module, _integer_products.of_activations)
        return rewrite(module, _arithmetic)


def _unsigned(value: Expr, graph: Graph) -> Expr | None:
    """Shift signed activations to unsigned, which the instructions want, zero point and all."""
    if not _quantization.is_quantization(value):
        return None
    tensor = _quantization.parameters(value)
    zero = graph.constant(tensor.zero)
    if zero is None:
        return None
    shifted = constant(zero.astype("int32") + 128, "uint8")
    if operator(value) == "quantize" and tensor.dtype == "int8":
        bytes_ = op.quantize(tensor.data, tensor.scale, shifted, tensor.axis, "uint8")
        return op.astype(_flipped(bytes_), "int8")
    if operator(value) == "dequantize" and tensor.stored == "int8":
        bytes_ = graph.call(tensor.data, "quantize")
        if bytes_ is not None or graph.constant(tensor.data) is not None:
            return None  # what the next round finds shifted, and weights
        bytes_ = op.astype(tensor.data, "uint8")
        back = graph.call(tensor.data, "astype")
        flip = None if back is None else graph.call(back.args[0], "bitwise_xor")
        bytes_ = _flipped(bytes_) if flip is None else flip.args[0]
        return op.dequantize(bytes_, tensor.scale, shifted, tensor.axis, tensor.dtype)
    return None


def _flipped(data: Expr) -> Expr:
    """Between signed and unsigned bytes: 128 more or less is the other highest bit."""
    return op.bitwise_xor(data, constant(np.asarray(128), "uint8"))


def _integral(value: Expr, graph: Graph) -> Expr | None:
    """Move dequantisation behind what integers can do."""
    rule = _moved if operator(value) in _MOVES else _RULES.get(operator(value))
    return None if rule is None else rule(value, graph)


def _moved(value: Expr, graph: Graph) -> Expr | None:
    tensor = _quantization.dequantized(value.args[0], graph)
    if tensor is None or tensor.stored not in ("uint8", "int8"):
        return None
    axis: int | None = tensor.axis
    if _quantization.scalar(tensor.scale, graph) is None:
        axis = _moved_axis(value, tensor.axis % tensor.rank)
        if axis is None:
            return None
    elif _quantization.scalar(tensor.zero, graph) is None:
        return None
    moved = _moved_data(value, tensor.data, graph)
    scale, zero = _flat(tensor.scale, graph), _flat(tensor.zero, graph)
    # A scalar's axis means nothing, but has to exist.
    axis = 0 if _quantization.scalar(scale, graph) is not None else axis
    return op.dequantize(moved, scale, zero, axis, tensor.dtype)


def _moved_axis(value: Expr, axis: int) -> int | None:
    """Where an operator puts an axis of its operand; None if that is not told."""
    if operator(value) == "permute_dims" and value.attrs.axes is not None:
        order = [int(place) for place in value.attrs.axes]
        return [place % len(order) for place in order].index(axis)
    if operator(value) == "expand_dims":
        rank = len(shape(value))
        added = {int(place) % rank for place in value.attrs.axis}
        return [place for place in range(rank) if place not in added][axis]
    return None


def _moved_data(value: Expr, data: Expr, graph: Graph) -> Expr:
    """The same operator on integers; on weights, its result."""
    known = graph.constant(data)
    if known is None or operator(value) in ("nn.max_pool2d", "strided_slice", "take"):
        return tvm.ir.Call(value.op, [data, *list(value.args)[1:]], value.attrs, value.ty_args)
    if operator(value) == "permute_dims":
        axes = value.attrs.axes
        known = known.transpose(None if axes is None else [int(axis) for axis in axes])
    return constant(known.reshape(shape(value)), known.dtype.name)


def _flat(parameter: Expr, graph: Graph) -> Expr:
    """A parameter without axes where it has one element."""
    array = graph.constant(parameter)
    if array is None or array.size > 1:
        return parameter
    return constant(array.reshape(()), str(array.dtype))


def _concat(value: Expr, graph: Graph) -> Expr | None:
    parts = graph.value(value.args[0])
    if not isinstance(parts, tvm.ir.Tuple):
        return None
    tensors = [_quantization.dequantized(part, graph) for part in parts.fields]
    known = [tensor for tensor in tensors if tensor is not None]
    if len(known) < len(tensors) or len({tensor.stored for tensor in known}) > 1:
        return None
    first = known[0]
    if not all(_quantization.same_parameters(first, tensor, graph) for tensor in known):
        return None
    joined = op.concat([tensor.data for tensor in known], int(value.attrs.axis))
    scale, zero = _flat(first.scale, graph), _flat(first.zero, graph)
    return op.dequantize(joined, scale, zero, 0, first.dtype)


def _identity(value: Expr, graph: Graph) -> Expr | None:
    """Quantising what was just dequantised, by the same parameters, gives the same integers."""
    target = _quantization.parameters(value)
    tensor = _quantization.dequantized(target.data, graph)
    if tensor is None or tensor.stored != target.dtype:
        return None
    return tensor.data if _quantization.same_parameters(tensor, target, graph) else None


def _requantized(value: Expr, graph: Graph) -> Expr | None:
    """What is quantised already, in parts, or looked up in a table of what it is made from."""
    results = (rule(value, graph) for rule in (_identity, _parts, _byte_tables.lookup))
    return next((new for new in results if new is not None), None)


def _parts(value: Expr, graph: Graph) -> Expr | None:
    """Quantise the parts of a concatenation one by one, where one of them then stays as it is.

    So is a cache that grows by a row: what was in it is neither dequantised nor quantised again.
    """
    target = _quantization.parameters(value)
    joined = graph.call(target.data, "concat")
    if joined is None or not graph.only_use(target.data):
        return None
    parts: Any = graph.value(joined.args[0])
    if not isinstance(parts, tvm.ir.Tuple):
        return None
    known = [_quantization.dequantized(part, graph) for part in parts.fields]
    if not any(
        tensor is not None
        and tensor.stored == target.dtype
        and _quantization.same_parameters(tensor, target, graph)
        for tensor in known
    ):
        return None
    quantized = [
        op.quantize(part, target.scale, target.zero, 0, target.dtype) for part in parts.fields
    ]
    return op.concat(quantized, int(joined.attrs.axis))


def _arithmetic(value: Expr, graph: Graph) -> Expr | None:
    """Write quantisation as plain operators, at each place where its result is read.

    A dequantised tensor with two readers would else be stored, four times as large.
    """
    if _quantization.is_quantization(value):
        return _written(value, graph)
    if not operator(value):
        return None
    if not any(_quantization.writable(graph.value(operand)) for operand in value.args):
        return None
    operands = _quantization.operands(value, graph)
    return tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)


def _written(value: Expr, graph: Graph) -> Expr | None:
    if operator(value) == "dequantize":
        return _quantization.as_arithmetic(value, graph) if _quantization.writable(value) else None
    known = _quantization.is_integer(str(value.attrs.out_dtype))
    return _quantization.quantized(value, graph) if known else None


_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "add": _integer_products.biased,
        "concat": _concat,
        "matmul": _integer_products.matmul,
        "nn.conv2d": _integer_products.conv2d,
        "quantize": _requantized,
    }
)
