"""Quantised tensors in a Relax graph: parameters read, and quantisation written as arithmetic."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler.ir.rewrite import Expr, Graph, constant, operator, shape
from hybridc.compiler.model import Array

op: Any = relax.op

# What computes each element from those in the same place.
_ELEMENTWISE = (
    "add",
    "divide",
    "maximum",
    "minimum",
    "multiply",
    "nn.gelu",
    "nn.gelu_tanh",
    "nn.relu",
    "nn.silu",
    "sigmoid",
    "subtract",
    "tanh",
)


@dataclass(frozen=True)
class Quantized:
    """The tensor `scale * (data - zero)`; `scale` and `zero` are scalars or run along `axis`."""

    data: Expr
    scale: Expr
    zero: Expr
    axis: int
    dtype: str

    @property
    def rank(self) -> int:
        """Axes of the tensor."""
        return int(self.data.ty.ndim)

    @property
    def stored(self) -> str:
        """The integer type of `data`."""
        return str(self.data.ty.dtype)

    def along(self, parameter: Array) -> Array:
        """A parameter in a shape that broadcasts against the tensor."""
        if parameter.size == 1:
            return parameter.reshape(())
        return parameter.reshape(broadcast_shape(parameter.size, self.axis, self.rank))


def broadcast_shape(size: int, axis: int, rank: int) -> tuple[int, ...]:
    """`size` along one axis, 1 along the others."""
    return tuple(size if i == axis % rank else 1 for i in range(rank))


def dequantized(expr: Expr, graph: Graph) -> Quantized | None:
    """What `expr` dequantises, or None if it is computed otherwise."""
    call = graph.call(expr, "dequantize")
    return None if call is None else parameters(call)


def parameters(call: Expr) -> Quantized:
    """The operands of a call of `quantize` or `dequantize`."""
    data, scale, zero = call.args
    return Quantized(data, scale, zero, int(call.attrs.axis), str(call.attrs.out_dtype))


def transposed(expr: Expr, graph: Graph) -> Expr | None:
    """`expr` with its last two axes exchanged, where a transpose on the way to it is undone so."""
    value = graph.value(expr)
    match operator(value):
        case "permute_dims":
            rank = int(value.ty.ndim)
            axes = [int(axis) % rank for axis in value.attrs.axes or range(rank)[::-1]]
            swapped = [*range(rank - 2), rank - 1, rank - 2]
            return value.args[0] if axes == swapped else None
        case "reshape":
            *lead, rows, columns = shape(value)
            before = transposed(value.args[0], graph)
            kept = before is not None and shape(value.args[0])[-2:] == (rows, columns)
            return op.reshape(before, (*lead, columns, rows)) if kept else None
        case "quantize" | "dequantize" | "multiply" if all(
            prod(shape(other)) == 1 for other in value.args[1:]
        ):
            before = transposed(value.args[0], graph)
            operands = [before, *list(value.args)[1:]]
            if before is None:
                return None
            return tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)
        case _:
            return None


def scalar(expr: Expr, graph: Graph) -> float | None:
    """The value of a constant with one element, or None."""
    array = graph.constant(expr)
    return array.item() if array is not None and array.size == 1 else None


def same_parameters(one: Quantized, other: Quantized, graph: Graph) -> bool:
    """Whether two tensors have the same scalar scale and zero point, known now."""
    pairs = [
        (scalar(a, graph), scalar(b, graph))
        for a, b in ((one.scale, other.scale), (one.zero, other.zero))
    ]
    return all(a is not None and a == b for a, b in pairs)


def multiplied(
    tensor: Quantized, graph: Graph, divisor: float | None = None, *, joined: bool = False
) -> Expr | None:
    """`scale * (data - zero)` as plain operators, divided by `divisor` where one is given.

    The division goes into the scale.  None if that is not known yet.  `joined` tells that the
    reader works element by element, and may compute the data itself.
    """
    scale, zero = graph.constant(tensor.scale), graph.constant(tensor.zero)
    if divisor is not None and scale is None:
        return None
    if joined and (value := _requantized(tensor, graph)) is not None:
        return op.multiply(value, _scale(tensor, scale, divisor))
    data, wide = tensor.data, tensor.stored in ("int32", "uint32")
    if wide and (zero is None or zero.any()):
        data = op.subtract(data, _parameter(tensor, tensor.zero, zero, tensor.stored))
    value = op.astype(data, "float32")
    if not wide and (zero is None or zero.any()):
        value = op.subtract(value, _parameter(tensor, tensor.zero, zero, "float32"))
    if scale is not None and divisor is None and (scale == 1).all():
        return value
    return op.multiply(value, _scale(tensor, scale, divisor))


def _scale(tensor: Quantized, known: Array | None, divisor: float | None) -> Expr:
    """The scale, divided by `divisor` in fp32."""
    if known is not None and divisor is not None:
        known = known.astype("float32") / np.float32(divisor)
    return _parameter(tensor, tensor.scale, known, "float32")


def _requantized(tensor: Quantized, graph: Graph) -> Expr | None:
    """`data - zero` of data that is quantised with the same zero point for this reader alone.

    It stays in fp32, and nothing is added only to be subtracted again.
    """
    call = graph.call(tensor.data, "quantize")
    if call is None or not _computed_here(tensor.data, graph):
        return None
    zeros = [scalar(e, graph) for e in (tensor.zero, call.args[2])]
    if None in zeros or zeros[0] != zeros[1]:
        return None
    limits = np.iinfo(tensor.stored)
    return saturated(op.round(scaled_down(call, graph)), limits, int(zeros[0] or 0))


def operands(value: Expr, graph: Graph) -> list[Expr]:
    """The operands of a call, the dequantised ones as plain operators.

    Where the call works element by element, its youngest operand is computed where it is read;
    what is older is stored, and best so in 8 bits.
    """
    calls = [graph.call(operand, "dequantize") for operand in value.args]
    youngest = _youngest(value, graph) if operator(value) in _ELEMENTWISE else None
    return [
        as_arithmetic(call, graph, joined=operand.same_as(youngest)) if writable(call) else operand
        for call, operand in zip(calls, value.args, strict=True)
    ]


def _youngest(value: Expr, graph: Graph) -> Expr | None:
    """Of the operands that nobody else reads in 8 bits, the one that is computed last.

    A divisor is read in 8 bits, which know no negative zero as rounding does.
    """
    order = {variable: index for index, variable in enumerate(graph.values)}
    age = {}
    for operand in value.args[:1] if operator(value) == "divide" else value.args:
        call = graph.call(operand, "dequantize")
        if call is not None and _computed_here(call.args[0], graph):
            age[operand] = order[call.args[0]]
    return max(age, key=lambda operand: age[operand], default=None)


def _computed_here(data: Expr, graph: Graph) -> bool:
    """Whether integers have one reader, and are quantised in this function."""
    return graph.call(data, "quantize") is not None and graph.only_use(data)


def as_arithmetic(call: Expr, graph: Graph, *, joined: bool = False) -> Expr:
    """A call of `dequantize` as plain operators; see `multiplied`."""
    tensor = parameters(call)
    value = multiplied(tensor, graph, joined=joined)
    return value if tensor.dtype == "float32" else op.astype(value, tensor.dtype)


def quantized(call: Expr, graph: Graph) -> Expr:
    """A call of `quantize` as plain operators: round half to even, add the zero point, saturate."""
    target = parameters(call)
    zero = graph.constant(target.zero)
    value = op.round(scaled_down(call, graph))
    if zero is None or zero.any():
        value = op.add(value, _parameter(target, target.zero, zero, "float32"))
    return op.astype(saturated(value, np.iinfo(target.dtype)), target.dtype)


def saturated(value: Expr, limits: Any, zero: int = 0) -> Expr:
    """`value` within an integer type's limits less `zero`."""
    low, high = (
        constant(np.asarray(limit - zero), "float32") for limit in (limits.min, limits.max)
    )
    return op.minimum(op.maximum(value, low), high)


def scaled_down(call: Expr, graph: Graph) -> Expr:
    """The data of a call of `quantize` by its scale.

    Where the data is computed by other scales, these are divided instead.
    """
    target = parameters(call)
    divisor = scalar(target.scale, graph)
    value = None if divisor is None else _scaled(target.data, divisor, graph)
    if value is None:
        return _divided(target, graph)
    # Saturation cuts off what is negative, as a rectifier would.
    rectified = scalar(target.zero, graph) == np.iinfo(target.dtype).min
    return value.args[0] if rectified and operator(value) == "nn.relu" else value


def _scaled(expr: Expr, divisor: float, graph: Graph, *, joined: bool = True) -> Expr | None:
    """`expr / divisor` with the division in the scales that `expr` is computed with, or None."""
    if (array := graph.constant(expr)) is not None:
        return constant(array.astype("float32") / np.float32(divisor), "float32")
    value = graph.value(expr)
    if writable(value):
        return multiplied(parameters(value), graph, divisor, joined=joined)
    if operator(value) not in ("add", "maximum", "minimum", "nn.relu") or not graph.only_use(expr):
        return None
    youngest = _youngest(value, graph)
    parts = [
        _scaled(operand, divisor, graph, joined=operand.same_as(youngest)) for operand in value.args
    ]
    if any(part is None for part in parts):
        return None
    return tvm.ir.Call(value.op, parts, value.attrs, value.ty_args)


def _divided(target: Quantized, graph: Graph) -> Expr:
    """The data of a call of `quantize` by its scale, one element at a time."""
    scale = graph.constant(target.scale)
    data = target.data
    if str(data.ty.dtype) != "float32":
        data = op.astype(data, "float32")
    return op.divide(data, _parameter(target, target.scale, scale, "float32"))


def _parameter(tensor: Quantized, expr: Expr, known: Array | None, dtype: str) -> Expr:
    """A scale or zero point of type `dtype` that broadcasts against the tensor."""
    if known is not None:
        return constant(tensor.along(known), dtype)
    extents = shape(expr)
    count = int(np.prod(extents))
    wanted = () if count == 1 else broadcast_shape(count, tensor.axis, tensor.rank)
    typed = expr if str(expr.ty.dtype) == dtype else op.astype(expr, dtype)
    return typed if extents == wanted else op.reshape(typed, wanted)


def is_integer(dtype: str) -> bool:
    """Whether numpy knows the type's limits as an integer's."""
    return dtype.startswith(("int", "uint")) and int(dtype.strip("uint")) >= 8


def writable(value: Expr) -> bool:
    """Whether a value is a call of `dequantize` on integers, which `multiplied` can write."""
    return operator(value) == "dequantize" and is_integer(str(value.args[0].ty.dtype))


def is_quantization(expr: Expr) -> bool:
    """Whether a value is a call of `quantize` or `dequantize`."""
    return operator(expr) in ("quantize", "dequantize")
