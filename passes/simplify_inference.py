"""Drop what only training needs, and operators that change nothing.

Every rewrite here gives the same numbers for every input, up to the sign of a zero, except for
powers with small whole exponents, which become products (each within 1 ulp), and the hyperbolic
tangent of a softplus, which is computed without the logarithm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import zip_longest
from types import MappingProxyType

import tvm
import tvm_ffi
from tvm import relax

from hybridc.compiler.errors import PassError
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Extent,
    Graph,
    Rule,
    bindings_of,
    operator,
    relax_functions,
    rewrite,
    shape,
)
from hybridc.passes import _softplus

# ELEMENT op neutral = ELEMENT, and whether the neutral element may stand on the left too.
_NEUTRAL = MappingProxyType(
    {"add": (0, True), "subtract": (0, False), "multiply": (1, True), "divide": (1, False)}
)

# What makes the same of two tensors as the reduction of both stacked; a mean is divided later.
_PAIRWISE = MappingProxyType(
    {
        "max": relax.op.maximum,
        "mean": relax.op.add,
        "min": relax.op.minimum,
        "sum": relax.op.add,
    }
)


@dataclass(frozen=True)
class SimplifyInference(Pass):
    """Remove dropout, identities and whatever else inference does not need."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite until nothing is left to drop."""
        return rewrite(module, _simplify)

    def ensures(self, module: IRModule) -> None:
        """No dropout is left."""
        for variable, function in relax_functions(module):
            for binding in bindings_of(function):
                if operator(binding.value) == "nn.dropout":
                    raise PassError(f"a dropout is left in {variable.name_hint}")


def _simplify(value: Expr, graph: Graph) -> Expr | None:
    if isinstance(value, tvm.ir.TupleGetItem):
        return _element(value, graph)
    rule = _RULES.get(operator(value))
    return None if rule is None else rule(value, graph)


def _element(value: Expr, graph: Graph) -> Expr | None:
    """An element of a tuple, of a dropout or of a batch norm's unchanged statistics."""
    source = graph.value(value.tuple_value)
    if isinstance(source, tvm.ir.Tuple):
        return source.fields[value.index]
    if operator(source) == "nn.dropout":
        data = source.args[0]
        return data if value.index == 0 else relax.op.ones_like(data)
    if operator(source) == "nn.batch_norm" and not source.attrs.training and value.index > 0:
        return source.args[2 + value.index]
    return None


def _same_type(value: Expr, graph: Graph) -> Expr | None:
    """A reshape, cast or split that leaves its operand as it is."""
    operand = value.args[0]
    return operand if tvm_ffi.structural_equal(operand.ty, value.ty) else None


def _reshape(value: Expr, graph: Graph) -> Expr | None:
    """Only the last of several reshapes counts."""
    if (same := _same_type(value, graph)) is not None:
        return same
    inner = graph.call(value.args[0], "reshape", "flatten", "squeeze", "expand_dims")
    return None if inner is None else relax.op.reshape(inner.args[0], shape(value))


def _permute(value: Expr, graph: Graph) -> Expr | None:
    axes = _axes(value)
    if axes == sorted(axes):
        return value.args[0]
    inner = graph.call(value.args[0], "permute_dims")
    if inner is None:
        return None
    first = _axes(inner)
    return relax.op.permute_dims(inner.args[0], [first[axis] for axis in axes])


def _axes(value: Expr) -> list[int]:
    rank = len(shape(value))
    axes = value.attrs.axes
    return list(range(rank))[::-1] if axes is None else [int(axis) % rank for axis in axes]


def _neutral(value: Expr, graph: Graph) -> Expr | None:
    """`x + 0`, `x * 1` and their like, where the constant does not widen x."""
    wanted, commutes = _NEUTRAL[operator(value)]
    left, right = value.args
    for operand, other in ((left, right), (right, left))[: 2 if commutes else 1]:
        number = graph.constant(other)
        if number is not None and (number == wanted).all():
            return operand if tvm_ffi.structural_equal(operand.ty, value.ty) else None
    return None


def _power(value: Expr, graph: Graph) -> Expr | None:
    """Exporters write squares, cubes and roots as powers; pow() is a slow library call."""
    base, exponent = value.args[0], graph.constant(value.args[1])
    if exponent is None or exponent.size != 1 or len(exponent.shape) > len(shape(base)):
        return None
    match exponent.item():
        case 1:
            return base
        case 2:
            return relax.op.multiply(base, base)
        case 3:
            return relax.op.multiply(relax.op.multiply(base, base), base)
        case _:
            return None


def _single(value: Expr, graph: Graph) -> Expr | None:
    """A concatenation of one tensor."""
    parts = graph.value(value.args[0])
    if isinstance(parts, tvm.ir.Tuple) and len(parts.fields) == 1:
        return parts.fields[0]
    return None


def _slice(value: Expr, graph: Graph) -> Expr | None:
    """A slice that keeps everything in order."""
    strides = value.args[4] if len(value.args) > 4 else ()
    forward = all(int(stride) > 0 for stride in strides)
    return _same_type(value, graph) if forward else None


def _stacked(value: Expr, graph: Graph) -> Expr | None:
    """A reduction over stacked tensors, as ONNX's Sum, Mean, Max and Min are imported."""
    stack = graph.call(value.args[0], "stack")
    if stack is None or value.attrs.keepdims or value.attrs.axis is None:
        return None
    parts = graph.value(stack.args[0])
    if not isinstance(parts, tvm.ir.Tuple):
        return None
    rank = len(shape(value)) + 1
    if [int(axis) % rank for axis in value.attrs.axis] != [int(stack.attrs.axis) % rank]:
        return None
    result = reduce(_PAIRWISE[operator(value)], parts.fields)
    if operator(value) != "mean":
        return result
    return relax.op.divide(result, relax.const(len(parts.fields), str(value.ty.dtype)))


def _elementwise(value: Expr, graph: Graph) -> Expr | None:
    """A broadcast that the operator would do by itself; or a neutral element."""
    if operator(value) in _NEUTRAL and (operand := _neutral(value, graph)) is not None:
        return operand
    for index, other in ((0, 1), (1, 0)):
        wide = graph.call(value.args[index], "broadcast_to")
        if wide is None:
            continue
        narrow = wide.args[0]
        if _broadcast(shape(narrow), shape(value.args[other])) == shape(value):
            operands = list(value.args)
            operands[index] = narrow
            return tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)
    return None


def _broadcast(one: Sequence[Extent], other: Sequence[Extent]) -> tuple[Extent, ...]:
    """The shape that two operands of an operator make, of which sizes may be open."""
    pairs = zip_longest(reversed(one), reversed(other), fillvalue=1)
    extents = [b if isinstance(a, int) and a == 1 else a for a, b in pairs]
    return tuple(reversed(extents))


def _no_pad(value: Expr, graph: Graph) -> Expr | None:
    """A pad by nothing; one that shifts (1, -1) keeps the shape but not the values."""
    return None if any(value.attrs.pad_width) else value.args[0]


_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "add": _elementwise,
        "astype": _same_type,
        "broadcast_to": _same_type,
        "concat": _single,
        "divide": _elementwise,
        "expand_dims": _reshape,
        "flatten": _reshape,
        "max": _stacked,
        "maximum": _elementwise,
        "mean": _stacked,
        "min": _stacked,
        "minimum": _elementwise,
        "multiply": _elementwise,
        "nn.pad": _no_pad,
        "permute_dims": _permute,
        "power": _power,
        "reshape": _reshape,
        "split": _same_type,
        "squeeze": _reshape,
        "strided_slice": _slice,
        "subtract": _elementwise,
        "sum": _stacked,
        "tanh": _softplus.tanh_of,
        "tile": _same_type,
    }
)
