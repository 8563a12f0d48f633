"""Padding without a padded copy: what lies outside of the image is not computed with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir.expr import Call, TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc, Schedule
from hybridc.schedules.loops import access, vector_loops

# Marks the loop over the rows of a window.
_ROWS = "hybridc.window_rows"
# Columns of a window that are unrolled; each is a loop over the depth with code of its own.
_UNROLLED = 7
# Channels that make a tap long enough: 3 of a 7x7 window took 2.5 times as long as with a copy.
_DEEP = 16


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


def is_skippable(schedule: Schedule, pad: Any, columns: int, depth: int = _DEEP) -> bool:
    """Whether `skip_copy` does without a padded copy, and is worth it.

    The window has so many columns, and each of its taps so many channels, over which asking
    whether it lies in the padding is spread.
    """
    plain = columns <= _UNROLLED and depth >= _DEEP
    return plain and _copy(schedule.get(pad)) is not None


def skip_copy(func: PrimFunc) -> PrimFunc:
    """Let a product read what its padded copy is made from, and skip its taps in the padding.

    The function is scheduled, but for the copy, which `is_skippable`.  The window's columns are
    unrolled: only tiles at the ends of an image row then ask, and what they ask is constant.
    """
    statements = list(func.body.block.body.seq)
    copy, nest = next((c, s) for s in statements if (c := _copy(_innermost(s))) is not None)
    rows: list[Any] = []
    columns: list[Any] = []

    def read(realize: Any) -> Any:
        block = realize.block
        reads = [copy.origin(region) for region in block.reads]
        body = structural_map(block.body, (TensorLoad, copy.element))
        if body.same_as(block.body):
            return realize
        reduced = [
            value
            for axis, value in zip(block.iter_vars, realize.iter_values, strict=True)
            if int(axis.iter_type) == tirx.IterVar.CommReduce
        ]
        rows.append(reduced[0])
        columns.append(reduced[1])
        return vector_loops.replaced(realize, body, block.iter_vars, reads=reads)

    def mark(loop: Any) -> Any:
        kind, marks = loop.kind, dict(loop.annotations)
        if any(loop.loop_var.same_as(var) for var in rows):
            marks[_ROWS] = 1
        elif any(loop.loop_var.same_as(var) for var in columns):
            kind = tirx.ForKind.UNROLLED
        else:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, kind, loop.body, None, marks)

    others = [statement for statement in statements if not statement.same_as(nest)]
    rest = tirx.SeqStmt(others) if len(others) > 1 else others[0]
    body = structural_map(rest, (s_tir.SBlockRealize, read))
    root = func.body
    kept = [buffer for buffer in root.block.alloc_buffers if not buffer.same_as(copy.buffer)]
    body = structural_map(body, (tirx.For, mark))
    return skip_taps(func.with_body(vector_loops.replaced(root, body, [], allocated=kept)))


@dataclass(frozen=True)
class _Copy:
    """A padded copy: element `axes` of `buffer` is `value` where `inside`, else zero."""

    buffer: Any
    axes: tuple[Any, ...]
    inside: Any
    value: Any

    def element(self, load: Any) -> Any:
        """What a load of the copy stands for; any other load as it is."""
        if not load.source.same_as(self.buffer):
            return load
        found = tirx.BufferLoad(self.value.source, self._indices(load.indices))
        places = dict(zip(self.axes, load.indices, strict=True))
        inside = vector_loops.substitute(self.inside, places)
        return tirx.if_then_else(inside, found, tirx.const(0, str(found.ty.dtype)))

    def origin(self, region: Any) -> Any:
        """What is read for a region of the copy, as though none of it were padding."""
        if not region.source.same_as(self.buffer):
            return region
        starts = self._indices([axis.min for axis in region.region])
        ranges = [
            tvm.ir.Range.from_min_extent(start, axis.extent)
            for start, axis in zip(starts, region.region, strict=True)
        ]
        return tirx.BufferRegion(self.value.source, ranges)

    def _indices(self, indices: Sequence[Any]) -> list[Any]:
        places = dict(zip(self.axes, indices, strict=True))
        return [vector_loops.substitute(index, places) for index in self.value.indices]


def _innermost(node: Any) -> Any:
    """The block of a statement that is nothing but loops around it, else None."""
    while isinstance(node, tirx.For):
        node = node.body
    return node.block if isinstance(node, s_tir.SBlockRealize) else None


def _copy(block: Any) -> _Copy | None:
    """What a block copies if it pads image rows and columns with zeros, but no channels."""
    if block is None or not isinstance(block.body, tirx.BufferStore):
        return None
    store, axes = block.body, tuple(axis.var for axis in block.iter_vars)
    call = store.value
    if not isinstance(call, Call) or not access.conditional(call) or not _zero(call.args[2]):
        return None
    plain = isinstance(call.args[1], TensorLoad) and len(axes) == len(call.args[1].indices)
    in_place = all(index.same_as(axis) for index, axis in zip(store.indices, axes, strict=True))
    if not plain or not in_place or access.uses(call.args[0], axes[-1]):
        return None
    return _Copy(store.buffer, axes, call.args[0], call.args[1])


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
            asked = vector_loops.substitute(condition, values)
            if any(access.uses(asked, var) for var in inner):
                body = tirx.IfThenElse(tirx.likely(condition), body, None)
            else:
                ahead.append(asked)
        return vector_loops.replaced(realize, body, realize.block.iter_vars)

    body = structural_map(loop.body, (s_tir.SBlockRealize, update))
    for condition in ahead:
        body = tirx.IfThenElse(condition, body, None)
    return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, None, marks)


def _guarded(store: Any) -> tuple[list[Any], Any]:
    """The conditions under which a multiply-add adds anything, and it without them."""
    conditions: list[Any] = []

    def bare(call: Any) -> Any:
        if not access.conditional(call) or not _zero(call.args[2]):
            return call
        conditions.extend(_conjunction(call.args[0]))
        return call.args[1]

    return conditions, structural_map(store, (Call, bare))


def _conjunction(condition: Any) -> list[Any]:
    if isinstance(condition, prim.And):
        return [*_conjunction(condition.a), *_conjunction(condition.b)]
    return [condition]


def _zero(value: Any) -> bool:
    if isinstance(value, prim.Broadcast):
        return _zero(value.value)
    return isinstance(value, prim.FloatImm | prim.IntImm) and float(value.value) == 0.0
