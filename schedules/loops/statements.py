"""Statements of TIR for rules that write loops themselves."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from tvm import s_tir, tirx

Expr = Any  # tvm.ir.Expr
Statement = Any  # tvm.tirx.Stmt
# What stands for the variables of a block, by their handles.
Places = Mapping[int, Expr]


def loop(counter: Any, extent: Any, body: Statement, kind: Any = tirx.ForKind.SERIAL) -> Statement:
    """Run a statement `extent` times."""
    wide = long(extent) if isinstance(extent, int) else extent
    return tirx.For(counter, long(0), wide, kind, body)


def nested(axes: Sequence[tuple[Any, Expr]], body: Callable[[Places], Statement]) -> Statement:
    """A loop for each axis, a block variable and its extent, around what `body` makes of them."""
    counters = [(counter("k"), extent) for _, extent in axes]
    made = body({hash(axis): own for (axis, _), (own, _) in zip(axes, counters, strict=True)})
    for own, extent in reversed(counters):
        made = loop(own, extent, made)
    return made


def with_buffers(parts: Sequence[Statement], buffers: Sequence[Any]) -> Statement:
    """Statements one after another, with buffers of their own."""
    block = s_tir.SBlock([], [], [], "row", sequence(parts), alloc_buffers=list(buffers))
    return s_tir.SBlockRealize([], True, block)


def sequence(parts: Sequence[Statement]) -> Statement:
    """Statements one after another."""
    return tirx.SeqStmt(list(parts)) if len(parts) > 1 else parts[0]


def scratch(size: int, dtype: Any) -> Any:
    """A buffer for lanes."""
    return tirx.decl_buffer((long(size),), str(dtype), "lanes")


def from_infinity(value: Expr) -> Expr:
    """The start of a reduction: infinite if TVM has the largest finite number."""
    dtype = str(value.ty.dtype)
    if not isinstance(value, tirx.FloatImm):
        return value
    for extreme, start in ((tirx.min_value(dtype), -inf), (tirx.max_value(dtype), inf)):
        if value.value == extreme.value:
            return tirx.const(start, dtype)
    return value


def counter(name: str) -> Any:
    """The variable of a loop."""
    return tirx.Var(name, "int64")


def long(value: int) -> Expr:
    """A number of 64 bits."""
    return tirx.const(value, "int64")


def ramp(first: Expr | int, lanes: int) -> Expr:
    """The places of a vector's lanes, from the first on."""
    return tirx.Ramp(long(first) if isinstance(first, int) else first, long(1), lanes)


def number_like(value: int, like: Expr) -> Expr:
    """A number of another expression's type."""
    return tirx.const(value, str(like.ty.dtype))
