"""Propagate NaN through maxima and minima."""

from collections.abc import Collection
from dataclasses import dataclass
from math import isnan
from types import MappingProxyType
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim.expr import FloatImm
from tvm.tirx import Cast, Let, Max, Min
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.ir.rewrite import rewrite_kernels
from hybridc.compiler.kernels.attention.attention_form import is_attention

Expr = Any  # tvm.ir.Expr
Buffer = Any  # tvm.tirx.Buffer


# The integer as wide as each type.
_BITS = MappingProxyType({"float16": "int16", "float32": "int32", "float64": "int64"})


@dataclass(frozen=True)
class PropagateNan(Pass):
    """Propagate NaN through maxima and minima.

    `max(a, b)` is `a if a > b else b` in TVM and in x86's instruction, which loses a NaN in `a`.
    A constant, which is not NaN, is put first, which costs nothing.  Otherwise both orders are
    computed, which differ only where an operand is NaN, and their bits are or-ed: NaN has all
    exponent bits set, and others.  The row maximum of attention needs none of that, since a NaN
    among the scores makes their sum NaN.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the maxima and minima of floats in every loop nest."""
        return rewrite_kernels(module, _rewrite)


def _rewrite(func: PrimFunc) -> PrimFunc:
    left = _largest_scores(func) if is_attention(func) else ()

    def extreme(value: Any) -> Any:
        plain = not _is_float(value) or _reads(value.a, left) or _reads(value.b, left)
        return value if plain else _passing(value)

    body = structural_map(func.body, [(Max, extreme), (Min, extreme)])
    return func if body.same_as(func.body) else func.with_body(body)


def _largest_scores(func: PrimFunc) -> list[Buffer]:
    """The buffers that collect maxima."""
    found: list[Buffer] = []

    def visit(store: Any) -> None:
        if isinstance(store.value, Max) and _reads(store.value.a, [store.buffer]):
            found.append(store.buffer)

    structural_walk(func.body, (tirx.BufferStore, visit))
    return found


def _passing(value: Any) -> Expr:
    """The same extreme value, NaN if an operand is."""
    kind = type(value)
    numbers = [operand for operand in (value.a, value.b) if _is_number(operand)]
    others = [operand for operand in (value.a, value.b) if not _is_number(operand)]
    if numbers:  # a number first, the other one passes
        return value if _is_number(value.a) else kind(*numbers, *others)
    return _bound(others, lambda bound: _joined(kind, *bound))


def _joined(kind: Any, a: Expr, b: Expr) -> Expr:
    dtype = str(a.ty.dtype)
    scalar, *lanes = dtype.split("x")
    bits = "x".join([_BITS[scalar], *lanes])
    one, other = (tirx.reinterpret(bits, kind(*order)) for order in ((a, b), (b, a)))
    return tirx.reinterpret(dtype, tirx.bitwise_or(one, other))


def _bound(values: list[Expr], body: Any, bound: tuple[Expr, ...] = ()) -> Expr:
    """The body on values that it uses more than once."""
    if len(bound) == len(values):
        return body(list(bound))
    value = values[len(bound)]
    if isinstance(value, TensorLoad | tvm.ir.Var):
        return _bound(values, body, (*bound, value))
    var = tirx.Var("operand", value.ty)
    return Let(var, value, _bound(values, body, (*bound, var)))


def _reads(expr: Expr, buffers: Collection[Buffer]) -> bool:
    return isinstance(expr, TensorLoad) and any(expr.source.same_as(each) for each in buffers)


def _is_float(expr: Expr) -> bool:
    return "float" in str(expr.ty.dtype)


def _is_number(expr: Expr) -> bool:
    """Whether an expression is never NaN."""
    if isinstance(expr, FloatImm):
        return not isnan(expr.value)
    return isinstance(expr, Cast) and not _is_float(expr.value)
