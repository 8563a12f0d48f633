"""Let NaN pass through maxima and minima."""

from collections.abc import Collection
from dataclasses import dataclass
from math import isnan
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim.expr import FloatImm
from tvm.tirx import Cast, Let, Max, Min, Select
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.kernels.attention_form import is_attention
from hybridc.compiler.rewrite import updated

Expr = Any  # tvm.ir.Expr
Buffer = Any  # tvm.tirx.Buffer


@dataclass(frozen=True)
class PropagateNan(Pass):
    """Let NaN pass through maxima and minima.

    `max(a, b)` is `a if a > b else b` in TVM and in x86's instruction, which forgets a NaN in `a`.
    What cannot be NaN, a constant, goes first, which costs nothing.  Else `a` is taken where it is
    NaN, which takes a comparison and a choice more.  The largest score of a row of attention needs
    none of that, as a NaN among the scores makes their sum NaN.  GPUs forget a NaN on either side.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the maxima and minima of floats in every loop nest."""
        forgetful = context.target.gpu is not None
        kernels = {
            var: new
            for var, func in module.functions_items()
            if isinstance(func, tirx.PrimFunc) and (new := _rewrite(func, forgetful)) is not func
        }
        return updated(module, kernels) if kernels else module


def _rewrite(func: PrimFunc, forgetful: bool) -> PrimFunc:
    accumulators: list[Buffer] = []

    def accumulator_last(store: Any) -> Any:
        """An update with its accumulator second: the comparison then does not wait for it."""
        value = store.value
        if not isinstance(value, Max | Min) or not _reads(value.a, [store.buffer]):
            return store
        accumulators.append(store.buffer)
        return tirx.BufferStore(store.buffer, type(value)(value.b, value.a), store.indices)

    def extreme(value: Any) -> Any:
        if not _is_float(value) or (is_attention(func) and _reads(value.b, accumulators)):
            return value
        return _passing(value, forgetful)

    ordered = structural_map(func.body, (tirx.BufferStore, accumulator_last))
    body = structural_map(ordered, [(Max, extreme), (Min, extreme)])
    return func if body.same_as(func.body) else func.with_body(body)


def _passing(value: Any, forgetful: bool) -> Expr:
    """The same extreme value, but NaN where an operand is; where `forgetful`, on either side."""
    numbers, others = [], []
    for operand in (value.a, value.b):
        (numbers if _is_number(operand) else others).append(operand)
    checked = others if forgetful else others[:-1]
    if not checked:  # a number first, the other one passes
        return value if _is_number(value.a) else type(value)(*numbers, *others)
    return _bound(others, lambda given: _chosen(type(value), numbers, given, len(checked)))


def _chosen(kind: Any, numbers: list[Expr], others: list[Expr], checked: int) -> Expr:
    made = kind(*numbers, *others)
    for operand in reversed(others[:checked]):
        made = Select(tirx.NE(operand, operand), operand, made)
    return made


def _bound(values: list[Expr], body: Any, given: tuple[Expr, ...] = ()) -> Expr:
    """The body on values that it uses more than once."""
    if len(given) == len(values):
        return body(list(given))
    value = values[len(given)]
    if isinstance(value, TensorLoad | tvm.ir.Var):
        return _bound(values, body, (*given, value))
    var = tirx.Var("operand", value.ty)
    return Let(var, value, _bound(values, body, (*given, var)))


def _reads(expr: Expr, buffers: Collection[Buffer]) -> bool:
    return isinstance(expr, TensorLoad) and any(expr.source.same_as(each) for each in buffers)


def _is_float(expr: Expr) -> bool:
    return "float" in str(expr.ty.dtype)


def _is_number(expr: Expr) -> bool:
    """Whether an expression is never NaN."""
    if isinstance(expr, FloatImm):
        return not isnan(expr.value)
    return isinstance(expr, Cast) and not _is_float(expr.value)
