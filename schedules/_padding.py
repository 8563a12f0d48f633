"""Padding without a padded copy: what lies outside of the image is not computed with."""

from typing import Any

from tvm import s_tir, tirx
from tvm.ir.expr import Call
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc, Schedule
from hybridc.schedules import _access, _vectors

# Marks the loop over the rows of a window.
_ROWS = "hybridc.window_rows"


def mark_rows(schedule: Schedule, loop: Any) -> None:
    """Mark the loop over a window's rows, for `skip_taps`."""
    schedule.annotate(loop, _ROWS, 1)


def skip_taps(func: PrimFunc) -> PrimFunc:
    """Make statements of the conditions under which a product's taps count.

    An update `sum = sum + if_then_else(inside, x, 0) * w` becomes `if inside: sum = sum + x * w`:
    what padding contributes is not computed at all.  The part of `inside` that only tells one row
    of the window from the next is asked once for the row; the rest is asked in place, is constant
    in unrolled tiles, and loop partition finds the tiles in which it always holds.
    """
    return func.with_body(structural_map(func.body, (tirx.For, _ask_ahead)))


def _ask_ahead(loop: Any) -> Any:
    if _ROWS not in loop.annotations:
        return loop
    marks = {k: v for k, v in loop.annotations.items() if k != _ROWS}
    inner: list[Any] = []
    structural_walk(loop.body, (tirx.For, lambda node: inner.append(node.loop_var)))
    ahead: list[Any] = []

    def update(realize: Any) -> Any:
        conditions, body = _guarded(realize.block.body)
        axes = (axis.var for axis in realize.block.iter_vars)
        values = dict(zip(axes, realize.iter_values, strict=True))
        for condition in conditions:
            asked = _vectors.substitute(condition, values)
            if any(_access.uses(asked, var) for var in inner):
                body = tirx.IfThenElse(tirx.likely(condition), body, None)
            else:
                ahead.append(asked)
        return _vectors.replaced(realize, body, realize.block.iter_vars)

    body = structural_map(loop.body, (s_tir.SBlockRealize, update))
    for condition in ahead:
        body = tirx.IfThenElse(condition, body, None)
    return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, None, marks)


def _guarded(store: Any) -> tuple[list[Any], Any]:
    """The conditions under which a multiply-add adds anything, and it without them."""
    conditions: list[Any] = []

    def bare(call: Any) -> Any:
        if not _access.conditional(call) or not _zero(call.args[2]):
            return call
        conditions.extend(_conjunction(call.args[0]))
        return call.args[1]

    return conditions, structural_map(store, (Call, bare))


def _conjunction(condition: Any) -> list[Any]:
    if isinstance(condition, prim.And):
        return [*_conjunction(condition.a), *_conjunction(condition.b)]
    return [condition]


def _zero(value: Any) -> bool:
    return isinstance(value, prim.FloatImm) and float(value.value) == 0.0
