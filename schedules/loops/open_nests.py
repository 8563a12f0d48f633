"""Writes the loops of blocks whose bounds are open, for `open_loops`."""

from collections.abc import Mapping, Sequence
from typing import Any

from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm.s_tir import ScheduleError
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.loops import access, analysis, transforms
from hybridc.schedules.loops.analysis import Block
from hybridc.schedules.loops.statements import counter, long, loop, nested, scratch, with_buffers

Expr = Any  # tvm.ir.Expr
Statement = Any  # tvm.tirx.Stmt

# How two values may be combined in any order.
_ASSOCIATIVE = (prim.Add, prim.Mul, prim.Max, prim.Min)
# Operations that are cheaper done again than stored, where several read them.
_CHEAP = 6
_REPEATED = 2


def is_plain(block: Block) -> bool:
    """Whether a block is one store under a loop for each axis, of whatever extent."""
    kinds = (tirx.IterVar.DataPar, tirx.IterVar.CommReduce)
    return (
        block.nested
        and isinstance(block.body, tirx.BufferStore)
        and all(int(axis.iter_type) in kinds for axis in block.node.iter_vars)
    )


def inlined(func: PrimFunc) -> PrimFunc:
    """The kernel with the elementwise blocks that are better computed again than stored."""
    schedule = transforms.new_schedule(func)
    for name in reversed([block.name for block in transforms.blocks(schedule)]):
        found = transforms.blocks(schedule)
        this = next(block for block in found if block.name == name)
        if this in analysis.outputs(func, found) or this.reduction:
            continue
        readers = analysis.readers(this, found)
        again = any(len(reader.axes) > len(this.axes) for reader in readers)
        most = _REPEATED if again else _CHEAP if len({r.name for r in readers}) > 1 else 100
        if this.operations > most:
            continue
        try:
            schedule.compute_inline(name)
        except ScheduleError:
            continue  # the block stays a stage
    return schedule.mod["main"]


def written(func: PrimFunc, target: Target, threads: bool) -> PrimFunc:
    """The kernel with loops of ours around each of its blocks, in their order."""
    root = func.body.block
    parts = [_Nest(block, target, threads).statement() for block in analysis.blocks(func)]
    body = parts[0] if len(parts) == 1 else tirx.SeqStmt(parts)
    block = s_tir.SBlock(
        [], root.reads, root.writes, root.name_hint, body, alloc_buffers=root.alloc_buffers
    )
    return func.with_body(s_tir.SBlockRealize([], True, block))


class _Nest:
    """The loops of one block."""

    def __init__(self, block: Block, target: Target, threads: bool) -> None:
        self._block, self._threads = block, threads
        self._lanes = target.lanes(block.widest)
        axes = block.node.iter_vars
        reduced = tirx.IterVar.CommReduce
        self._kept = [(a.var, a.dom.extent) for a in axes if int(a.iter_type) != reduced]
        self._summed = [(a.var, a.dom.extent) for a in axes if int(a.iter_type) == reduced]

    def statement(self) -> Statement:
        """The loops and what is in them."""
        if not self._summed:
            return self._elementwise()
        return self._along() if self._reads_along() else self._across()

    def _elementwise(self) -> Statement:
        """Vectors along the last axis."""
        if not self._kept:
            return self._block.body
        *outer, (var, extent) = self._kept

        def body(places: Mapping[int, Expr]) -> Statement:
            return self._vectors(extent, lambda place: self._store({**places, hash(var): place}))

        return self._outer(outer, body)

    def _along(self) -> Statement:
        """A sum over each row: vectors along it, their lanes together at the end."""
        row = self._row_of_lanes if self._in_any_order() else self._in_order
        return self._outer(self._kept, row)

    def _row_of_lanes(self, places: Mapping[int, Expr]) -> Statement:
        """One row, added up lane by lane; what is behind whole vectors goes straight to the sum."""
        *outer, _ = self._summed
        lanes = scratch(self._lanes, self._block.writes[0].dtype)
        total = scratch(1, self._block.writes[0].dtype)
        lane, again, zero = counter("lane"), counter("lane"), long(0)
        start = self._neutral(places)
        element = self._folded(total, zero, tirx.BufferLoad(lanes, [again]))
        indices = [self._at(index, places) for index in self._block.body.indices]
        clear = tirx.BufferStore(lanes, start, [lane])
        parts = [
            loop(lane, self._lanes, clear, tirx.ForKind.VECTORIZED),
            tirx.BufferStore(total, start, [zero]),
            nested(outer, lambda rest: self._terms({**places, **rest}, lanes, total)),
            loop(again, self._lanes, tirx.BufferStore(total, element, [zero])),
            tirx.BufferStore(self._block.body.buffer, tirx.BufferLoad(total, [zero]), indices),
        ]
        return with_buffers(parts, [lanes, total])

    def _terms(self, places: Mapping[int, Expr], lanes: Any, total: Any) -> Statement:
        """The loops along the last summed axis, into `lanes` and, behind these, into `total`."""
        var, extent = self._summed[-1]
        chunk, slot, tail = (counter(name) for name in ("chunk", "lane", "tail"))
        whole = tirx.floordiv(extent, self._lanes)

        def add(into: Any, at: Expr, place: Expr) -> Statement:
            value = self._combined({**places, hash(var): place}, into, at)
            return tirx.BufferStore(into, value, [at])

        step = add(lanes, slot, chunk * self._lanes + slot)
        vector = loop(slot, self._lanes, step, tirx.ForKind.VECTORIZED)
        rest = add(total, long(0), whole * self._lanes + tail)
        left = extent - whole * self._lanes
        return tirx.SeqStmt([loop(chunk, whole, vector), loop(tail, left, rest)])

    def _across(self) -> Statement:
        """Sums of neighbouring rows side by side, a vector of them at a time."""
        if not self._kept:
            return self._in_order({})
        *outer, (var, extent) = self._kept

        def body(places: Mapping[int, Expr]) -> Statement:
            def rows(first: Expr, count: int) -> Statement:
                lanes = scratch(count, self._block.writes[0].dtype)
                kind = tirx.ForKind.VECTORIZED if count > 1 else tirx.ForKind.SERIAL

                def each(make: Any) -> Statement:
                    lane = counter("lane")
                    at = {**places, hash(var): first + lane}
                    return loop(lane, count, make(lane, at), kind)

                def term(rest: Mapping[int, Expr]) -> Statement:
                    return each(
                        lambda lane, at: tirx.BufferStore(
                            lanes, self._combined({**at, **rest}, lanes, lane), [lane]
                        )
                    )

                parts = [
                    each(lambda lane, at: tirx.BufferStore(lanes, self._neutral(at), [lane])),
                    nested(self._summed, term),
                    each(
                        lambda lane, at: tirx.BufferStore(
                            self._block.body.buffer,
                            tirx.BufferLoad(lanes, [lane]),
                            [self._at(index, at) for index in self._block.body.indices],
                        )
                    ),
                ]
                return with_buffers(parts, [lanes])

            chunk, tail = counter("chunk"), counter("tail")
            whole = tirx.floordiv(extent, self._lanes)
            parts = [
                loop(chunk, whole, rows(chunk * self._lanes, self._lanes)),
                loop(tail, extent - whole * self._lanes, rows(whole * self._lanes + tail, 1)),
            ]
            return tirx.SeqStmt(parts)

        return self._outer(outer, body)

    def _in_order(self, places: Mapping[int, Expr]) -> Statement:
        """A sum one by one, where the result is kept in one place."""
        total, zero = scratch(1, self._block.writes[0].dtype), long(0)
        indices = [self._at(index, places) for index in self._block.body.indices]

        def term(rest: Mapping[int, Expr]) -> Statement:
            value = self._combined({**places, **rest}, total, zero)
            return tirx.BufferStore(total, value, [zero])

        parts = [
            tirx.BufferStore(total, self._neutral(places), [zero]),
            nested(self._summed, term),
            tirx.BufferStore(self._block.body.buffer, tirx.BufferLoad(total, [zero]), indices),
        ]
        return with_buffers(parts, [total])

    def _outer(self, axes: Sequence[tuple[Any, Expr]], body: Any) -> Statement:
        """One loop over all of these axes, on all threads where that is wanted."""
        # An axis of one element has one place; as a quotient of the counter TVM takes it for open,
        # and lets the counter appear outside of its loop.
        places: dict[int, Expr] = {hash(var): long(0) for var, extent in axes if _is_one(extent)}
        axes = [(var, extent) for var, extent in axes if not _is_one(extent)]
        if not axes:
            return body(places)
        task = counter("task")
        rest: Expr = task
        total: Expr = long(1)
        for i, (var, extent) in reversed(list(enumerate(axes))):
            places[hash(var)] = rest if i == 0 else tirx.floormod(rest, extent)
            rest = tirx.floordiv(rest, extent)
            total = total * extent
        kind = tirx.ForKind.PARALLEL if self._threads else tirx.ForKind.SERIAL
        return loop(task, total, body(places), kind)

    def _vectors(self, extent: Expr, store: Any) -> Statement:
        """Whole vectors, then single elements."""
        chunk, lane, tail = (
            counter("chunk"),
            counter("lane"),
            counter("tail"),
        )
        whole = tirx.floordiv(extent, self._lanes)
        vector = loop(lane, self._lanes, store(chunk * self._lanes + lane), tirx.ForKind.VECTORIZED)
        alone = self._threads and len(self._kept) == 1
        kind = tirx.ForKind.PARALLEL if alone else tirx.ForKind.SERIAL
        left = extent - whole * self._lanes
        return tirx.SeqStmt(
            [
                loop(chunk, whole, vector, kind),
                loop(tail, left, store(whole * self._lanes + tail)),
            ]
        )

    def _store(self, places: Mapping[int, Expr]) -> Statement:
        store = self._block.body
        indices = [self._at(index, places) for index in store.indices]
        return tirx.BufferStore(store.buffer, self._at(store.value, places), indices)

    def _at(self, expr: Expr, places: Mapping[int, Expr]) -> Expr:
        """An expression at a place of the block's axes."""
        return structural_map(expr, (tirx.Var, lambda var: places.get(hash(var), var)))

    def _neutral(self, places: Mapping[int, Expr]) -> Expr:
        return self._at(self._block.node.init.value, places)

    def _combined(self, places: Mapping[int, Expr], into: Any, at: Expr) -> Expr:
        """What the block stores, with its own result so far in another buffer."""
        own = self._block.body.buffer

        def load(node: Any) -> Any:
            return tirx.BufferLoad(into, [at]) if node.source.same_as(own) else node

        return structural_map(self._at(self._block.body.value, places), (TensorLoad, load))

    def _folded(self, total: Any, at: Expr, value: Expr) -> Expr:
        return type(self._block.body.value)(tirx.BufferLoad(total, [at]), value)

    def _in_any_order(self) -> bool:
        value, own = self._block.body.value, self._block.body.buffer
        first = getattr(value, "a", None)
        return (
            isinstance(value, _ASSOCIATIVE)
            and isinstance(first, TensorLoad)
            and first.source.same_as(own)
        )

    def _reads_along(self) -> bool:
        """Whether the last reduced axis is contiguous in what is read."""
        var = self._summed[-1][0]
        last = self._kept[-1][0] if self._kept else None
        loads = [load for load in self._block.loads if access.uses(load, var)]
        along = [load.indices and access.uses(load.indices[-1], var) for load in loads]
        across = [last is not None and access.uses(load.indices[-1], last) for load in loads]
        return last is None or (any(along) and not any(across))


def _is_one(extent: Expr) -> bool:
    return isinstance(extent, tirx.IntImm) and int(extent) == 1
