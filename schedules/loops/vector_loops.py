"""Keeps conditions out of vectors: with one for each lane, TVM makes scalar code of a vector."""

from collections.abc import Callable
from typing import Any

import tvm
from tvm import s_tir, sym, tirx
from tvm.ir.expr import Call
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_walk

from hybridc.schedules.loops import access
from hybridc.schedules.loops.statements import number_like

Var = Any  # tvm.ir.expr.Var

# Marks the loop over vectors of an axis that is no whole number of them; the value is the number
# of elements in the last, narrower vector.
TAIL = "hybridc.tail"
# Marks such a loop where elements may be computed twice: the last vector is whole then, and begins
# within the one before it.
OVERLAP = "hybridc.overlap"
# Marks such a loop of a reduction that may combine elements twice: likewise, of what is combined.
AGAIN = "hybridc.again"


def straighten(body: Any) -> Any:
    """Rewrite a scheduled function's body so that no condition depends on the lane.

    The narrower last vectors become loops of their own, and a condition that changes between
    vectors only is asked of their first lane.
    """
    return structural_map(body, (tirx.For, lambda loop: _even(_split_tail(loop))))


def _split_tail(loop: Any) -> Any:
    if TAIL not in loop.annotations:
        return loop
    rest = int(loop.annotations[TAIL])
    others = {k: v for k, v in loop.annotations.items() if k not in (TAIL, OVERLAP, AGAIN)}
    last = number_like(int(loop.extent) - 1, loop.loop_var)
    main = tirx.For(loop.loop_var, loop.min, last, loop.kind, loop.body, None, others)
    change = _narrow
    if int(last) > 0:
        change = _moved if OVERLAP in loop.annotations else change
        change = _again if AGAIN in loop.annotations else change
    tail = _unguarded(_copy(loop.body, {loop.loop_var: last}, rest, change))
    return tirx.SeqStmt([_unguarded(main), tail]) if int(last) else tail


def _copy(body: Any, values: dict[Var, Any], lanes: int, change: Callable[[Any, int], Any]) -> Any:
    """A copy of a loop's body with variables of its own, some at `values`.

    Vectors have other `lanes`, or all of theirs but moved back until they end with those.
    """
    copy = copied(body, values)
    return structural_map(copy, (tirx.For, lambda node: change(node, lanes)))


def copied(body: Any, values: dict[Var, Any]) -> Any:
    """A copy of a loop's body with variables of its own, some at `values`."""
    renamed = dict(values)

    def define(old: Var) -> None:
        renamed[old] = tirx.Var(old.name, old.ty)

    structural_walk(body, (tirx.For, lambda node: define(node.loop_var)))
    structural_walk(body, (tirx.IterVar, lambda node: define(node.var)))
    structural_walk(body, ((prim.Let, tirx.Bind), lambda node: define(node.var)))
    return substitute(body, renamed)


def _moved(loop: Any, lanes: int) -> Any:
    if int(loop.kind) != tirx.ForKind.VECTORIZED:
        return loop
    back = loop.loop_var - number_like(int(loop.extent) - lanes, loop.loop_var)
    body = substitute(loop.body, {loop.loop_var: back})
    return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, None, loop.annotations)


def _again(loop: Any, lanes: int) -> Any:
    """Move what a reduction combines, and leave its lanes where they are."""
    if int(loop.kind) != tirx.ForKind.VECTORIZED:
        return loop
    realize = loop.body
    pairs = zip(realize.block.iter_vars, realize.iter_values, strict=True)
    (lane,) = (axis.var for axis, value in pairs if value.same_as(loop.loop_var))
    back = lane - number_like(int(loop.extent) - lanes, lane)
    store = realize.block.body
    term = substitute(store.value.b, {lane: back})
    value = type(store.value)(store.value.a, term)
    body = replaced(
        realize, tirx.BufferStore(store.buffer, value, store.indices), realize.block.iter_vars
    )
    return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, None, loop.annotations)


def _narrow(loop: Any, lanes: int) -> Any:
    if int(loop.kind) != tirx.ForKind.VECTORIZED:
        return loop
    kind = tirx.ForKind.VECTORIZED if lanes > 1 else tirx.ForKind.SERIAL
    extent = number_like(lanes, loop.loop_var)
    return tirx.For(loop.loop_var, loop.min, extent, kind, loop.body, None, loop.annotations)


def _unguarded(body: Any) -> Any:
    """Drop the block predicates that the loops' extents now make true."""
    analyzer = sym.Analyzer()

    def bind(loop: Any) -> None:
        analyzer.bind(loop.loop_var, tvm.ir.Range.from_min_extent(loop.min, loop.extent))

    def simplify(realize: Any) -> Any:
        predicate = analyzer.simplify(realize.predicate)
        return s_tir.SBlockRealize(realize.iter_values, predicate, realize.block)

    structural_walk(body, (tirx.For, bind))
    return structural_map(body, (s_tir.SBlockRealize, simplify))


def _even(loop: Any) -> Any:
    """In a loop over lanes, ask the conditions of its block of the first lane only."""
    if not isinstance(loop, tirx.For) or int(loop.kind) != tirx.ForKind.VECTORIZED:
        return loop
    if not isinstance(loop.body, s_tir.SBlockRealize):
        return loop
    realize, lanes = loop.body, int(loop.extent)
    axes = [axis.var for axis in realize.block.iter_vars]
    for var, value in zip(axes, realize.iter_values, strict=True):
        if access.uses(value, loop.loop_var):
            first = substitute(value, {loop.loop_var: number_like(0, loop.loop_var)})
            realize = _ask_first(realize, var, first, lanes)
    return tirx.For(
        loop.loop_var, loop.min, loop.extent, loop.kind, realize, None, loop.annotations
    )


def _ask_first(realize: Any, var: Var, first: Any, lanes: int) -> Any:
    """Give a block an axis that stands at the first lane of `var`, for its conditions to use."""
    known = sym.Analyzer().modular_set(first)
    if int(known.coeff) % lanes or int(known.base) % lanes:
        return realize
    start = tirx.Var(f"{var.name}_vector", var.ty)

    def ask(node: Any) -> Any:
        limit = access.boundary(node, var)
        return substitute(node, {var: start}) if limit and limit.at % lanes == 0 else node

    def condition(call: Any) -> Any:
        if not access.conditional(call):
            return call
        asked = structural_map(call.args[0], (access.COMPARISONS, ask))
        return tirx.if_then_else(asked, *call.args[1:])

    old = realize.block
    body = structural_map(old.body, (Call, condition))
    if not access.uses(body, start):
        return realize
    (axis,) = (axis for axis in old.iter_vars if axis.var.same_as(var))
    axes = [*old.iter_vars, tirx.IterVar(axis.dom, start, axis.iter_type)]
    return replaced(realize, body, axes, [*realize.iter_values, first])


def replaced(  # noqa: PLR0913, PLR0917 - the parts of a block that callers change
    realize: Any,
    body: Any,
    axes: Any,
    values: Any = None,
    reads: Any = None,
    allocated: Any = None,
) -> Any:
    """A copy of a block with another body, other axes and what they are bound to.

    The regions that it `reads` and the buffers `allocated` in it are the old ones if not given.
    """
    old = realize.block
    block = s_tir.SBlock(
        axes,
        old.reads if reads is None else reads,
        old.writes,
        old.name_hint,
        body,
        old.init,
        old.alloc_buffers if allocated is None else allocated,
        old.match_buffers,
        old.annotations,
    )
    bound = realize.iter_values if values is None else values
    return s_tir.SBlockRealize(bound, realize.predicate, block)


def substitute(node: Any, values: dict[Var, Any]) -> Any:
    """`node` with each variable of `values` replaced by its value."""
    kind = type(next(iter(values)))
    return structural_map(node, (kind, lambda old: values.get(old, old)))
