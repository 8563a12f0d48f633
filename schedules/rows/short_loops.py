"""Loops for short rows: turned in registers, computed with a lane for each, and turned back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map

from hybridc.schedules.loops import register_tiles, statements, vector_loops
from hybridc.schedules.rows.short import ELEMENT, ROW, SAME, Stage, Turned

Expr = Any  # tvm.ir.Expr
Statement = Any  # tvm.tirx.Stmt


@dataclass
class Writer:
    """Writes the loops of one kernel."""

    turned: Turned
    first: Expr = field(default_factory=lambda: statements.counter("first"))
    places: dict[int, Any] = field(default_factory=dict[int, Any])

    def body(self, threads: bool) -> Statement:
        """The root block with all loops; the last group of rows overlaps that before it."""
        turned, lanes = self.turned, self.turned.lanes
        groups = -(-turned.count // lanes)
        task = statements.counter("task")
        self.first = tirx.min(task * lanes, statements.long(turned.count - lanes))
        made = self._group()
        kind = tirx.ForKind.PARALLEL if threads and groups > 1 else tirx.ForKind.SERIAL
        root = turned.func.body.block
        loop = statements.loop(task, groups, made, kind)
        block = s_tir.SBlock([], root.reads, root.writes, root.name_hint, loop)
        return s_tir.SBlockRealize([], True, block)

    def _group(self) -> Statement:
        turned, lanes, length = self.turned, self.turned.lanes, self.turned.length
        buffers: list[Any] = []
        made: list[Statement] = []
        for source in turned.given:
            scratch = self._new(source, length * lanes, buffers)
            made += self._turn(source, scratch, buffers)
        for stage in turned.stages:
            buffer, part = stage.block.body.buffer, turned.stored(stage)
            last = stage is turned.stages[-1]
            size = length * lanes if part == ELEMENT else lanes
            target = self._new(buffer, size, buffers)
            made += self._compute(stage, target)
            if last:
                made += self._store(buffer, target, part, buffers)
        return statements.with_buffers(made, buffers)

    def _new(self, buffer: Any, size: int, buffers: list[Any]) -> Any:
        scratch = statements.scratch(size, buffer.dtype)
        buffers.append(scratch)
        self.places[hash(buffer)] = scratch
        return scratch

    def _compute(self, stage: Stage, target: Any) -> list[Statement]:
        """The elements of a stage, a lane for each row."""
        block, lanes = stage.block, self.turned.lanes
        lane = statements.counter("lane")
        column = statements.counter("column")
        values = {axis: tirx.const(0, str(axis.ty.dtype)) for axis in block.axes}
        if stage.column is not None:
            values[stage.column] = column

        def load(node: Any) -> Any:
            if node.source.same_as(block.body.buffer):
                return target[lane]
            part = self.turned.part(stage, node)
            if part == SAME:
                return node
            if (scratch := self.places.get(hash(node.source))) is not None:
                return scratch[column * lanes + lane if part == ELEMENT else lane]
            return node.source[_flat(node.source, self.first + lane)]

        value = vector_loops.substitute(
            structural_map(block.body.value, (TensorLoad, load)), values
        )
        whole = stage.column is not None and not stage.reduced
        store = tirx.BufferStore(target, value, [column * lanes + lane if whole else lane])
        inner = statements.loop(lane, lanes, store, tirx.ForKind.VECTORIZED)
        if stage.column is None:
            return [inner]
        loop = statements.loop(column, self.turned.length, inner)
        return [*self._start(stage, target), loop]

    def _start(self, stage: Stage, target: Any) -> list[Statement]:
        """What a reduction starts with; extremes at infinity, where TVM has the largest numbers."""
        if not stage.reduced:
            return []
        lane = statements.counter("lane")
        value = statements.from_infinity(stage.block.node.init.value)
        store = tirx.BufferStore(target, value, [lane])
        return [statements.loop(lane, self.turned.lanes, store, tirx.ForKind.VECTORIZED)]

    def _turn(self, source: Any, scratch: Any, buffers: list[Any]) -> list[Statement]:
        """Bring rows into columns."""
        lanes, length = self.turned.lanes, self.turned.length
        start = self.first * length
        if length < lanes:
            parts = [_vector(source, start + i * lanes, lanes) for i in range(length)]
            return [
                _put(scratch, c * lanes, _shuffled(parts, [i * length + c for i in range(lanes)]))
                for c in range(length)
            ]
        made: list[Statement] = []
        for column in self._tiles():
            tile = [_vector(source, start + i * length + column, lanes) for i in range(lanes)]
            made += self._tile(tile, scratch, [(column + i) * lanes for i in range(lanes)], buffers)
        return made

    def _store(
        self, output: Any, scratch: Any, part: str | None, buffers: list[Any]
    ) -> list[Statement]:
        """Write the output, turned back where it has columns."""
        lanes, length = self.turned.lanes, self.turned.length
        if part == ROW:
            lane = statements.counter("lane")
            store = tirx.BufferStore(output, scratch[lane], _flat(output, self.first + lane))
            return [statements.loop(lane, lanes, store, tirx.ForKind.VECTORIZED)]
        start = self.first * length
        if length < lanes:
            parts = [_vector(scratch, statements.long(c * lanes), lanes) for c in range(length)]
            flat = [f % length * lanes + f // length for f in range(lanes * length)]
            return [
                _put(output, start + i * lanes, _shuffled(parts, flat[i * lanes : (i + 1) * lanes]))
                for i in range(length)
            ]
        made: list[Statement] = []
        for column in self._tiles():
            tile = [
                _vector(scratch, statements.long((column + i) * lanes), lanes) for i in range(lanes)
            ]
            made += self._tile(
                tile, output, [start + i * length + column for i in range(lanes)], buffers
            )
        return made

    def _tiles(self) -> list[int]:
        """Where square tiles of the columns begin; the last one overlaps that before it."""
        lanes, length = self.turned.lanes, self.turned.length
        return [min(column, length - lanes) for column in range(0, length, lanes)]

    def _tile(
        self, vectors: list[Expr], target: Any, places: Sequence[Any], buffers: list[Any]
    ) -> list[Statement]:
        """Swap rows and columns of a square of vectors, and store them at these places."""
        lanes, made = self.turned.lanes, list[Statement]()
        for pattern in register_tiles.transposition(lanes):
            stage = statements.scratch(lanes * lanes, target.dtype)
            buffers.append(stage)
            for i, (operands, order) in enumerate(pattern):
                made.append(
                    _put(stage, i * lanes, _shuffled([vectors[j] for j in operands], order))
                )
            vectors = [_vector(stage, statements.long(i * lanes), lanes) for i in range(lanes)]
        made += [_put(target, at, vector) for at, vector in zip(places, vectors, strict=True)]
        return made


def _shuffled(parts: Sequence[Expr], order: Sequence[int]) -> Expr:
    return tirx.Shuffle(list(parts), [tirx.const(i, "int32") for i in order])


def _vector(buffer: Any, at: Expr, lanes: int) -> Expr:
    return buffer[_flat(buffer, tirx.Ramp(at, statements.long(1), lanes))]


def _put(buffer: Any, at: Any, value: Expr) -> Statement:
    start = statements.long(at) if isinstance(at, int) else at
    lanes = int(value.ty.dtype.lanes)
    return tirx.BufferStore(
        buffer, value, _flat(buffer, tirx.Ramp(start, statements.long(1), lanes))
    )


def _flat(buffer: Any, at: Expr) -> list[Expr]:
    """Indices of what lies `at` places behind the first element, whatever the shape."""
    return [*[statements.long(0)] * (len(buffer.shape) - 1), at]
