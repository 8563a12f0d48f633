"""Transposes through registers: tiles are read along one axis, shuffled, and written along another.

Tiles at the end overlap those before them: what is computed twice is the same both times.
"""

from math import prod
from typing import Any

from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.loops.nests import Axis, Nest
from hybridc.schedules.loops.statements import counter, long, loop

Expr = Any  # tvm.ir.Expr
Statement = Any  # tvm.tirx.Stmt

_BYTES = ("int8", "uint8")


def schedule(func: PrimFunc, nest: Nest, rows: int, threads: bool) -> PrimFunc:
    """The function with its block tiled: `rows` tiles along the reads for each task."""
    return func.with_body(_Writer(nest).body(func, rows, threads))


class _Writer:
    """Writes the loops of one nest."""

    def __init__(self, nest: Nest) -> None:
        self.nest, self.lanes = nest, nest.lanes
        self.height, self.width = nest.height, nest.width
        self.row, self.column = nest.axes[nest.rows], nest.axes[-1]

    def body(self, func: PrimFunc, rows: int, threads: bool) -> Statement:
        """The root block with all loops."""
        outer = [a for i, a in enumerate(self.nest.axes[:-1]) if i != self.nest.rows]
        tiles = _up(self.row.extent, self.height)
        groups = _up(tiles, rows)
        count = prod(axis.extent for axis in outer) * groups
        task, tile, column = (counter(name) for name in ("task", "tile", "column"))
        group, places = task % groups, []
        rest = task // groups
        for axis in reversed(outer):
            places.append((rest % axis.extent, axis))
            rest = rest // axis.extent
        first = tirx.min((group * rows + tile) * self.height, self.row.extent - self.height)
        second = tirx.min(column * self.width, self.column.extent - self.width)
        places += [(first, self.row), (second, self.column)]
        body = self._tile(places)
        # Rows inside, as far as they share the cache lines that are read; then along the writes.
        body = loop(tile, tirx.min(long(rows), tiles - group * rows), body)
        body = loop(column, _up(self.column.extent, self.width), body)
        kind = tirx.ForKind.PARALLEL if threads and count > 1 else tirx.ForKind.SERIAL
        body = loop(task, count, body, kind)
        root = func.body.block
        block = s_tir.SBlock([], root.reads, root.writes, root.name_hint, body)
        return s_tir.SBlockRealize([], True, block)

    def _tile(self, places: list[tuple[Expr, Axis]]) -> Statement:
        """One tile: loads into vectors, shuffles, and what is computed of them."""
        at = [
            start + sum((place * axis.steps[i] for place, axis in places), long(0))
            for i, start in enumerate(self.nest.start)
        ]
        buffers: list[Any] = []
        statements: list[Statement] = []
        tiles: dict[int, Any] = {}
        for i in self.nest.crossing:
            made, found = self._shuffled(i, at[i + 1])
            buffers += found
            statements += made
            tiles[i] = found[-1]
        statements.append(self._store(at, tiles))
        body = tirx.SeqStmt(statements)
        block = s_tir.SBlock([], [], [], "tile", body, alloc_buffers=buffers)
        return s_tir.SBlockRealize([], True, block)

    def _shuffled(self, index: int, at: Expr) -> tuple[list[Statement], list[Any]]:
        """Load a tile of one load and bring it into the order of the store."""
        load, dtype = self.nest.loads[index], str(self.nest.loads[index].ty.dtype)
        count = self.height * self.width // self.lanes
        step = self.lanes if self.nest.few == "in" else self.column.steps[index + 1]
        stages = [_buffer(count * self.lanes, dtype)]
        made = [
            _vector_store(stages[0], i, _vector(load.source, at + i * step, self.lanes))
            for i in range(count)
        ]
        for pattern in self._patterns(count):
            source, target = stages[-1], _buffer(count * self.lanes, dtype)
            vectors = [_vector(source, long(i * self.lanes), self.lanes) for i in range(count)]
            for i, (operands, order) in enumerate(pattern):
                value = tirx.Shuffle([vectors[j] for j in operands], [_int(k) for k in order])
                made.append(_vector_store(target, i, value))
            stages.append(target)
        return made, stages

    def _patterns(self, count: int) -> list[list[tuple[list[int], list[int]]]]:
        """For each stage and vector: the vectors that it is made of, and which lanes of those."""
        everything, lanes = list(range(count)), self.lanes
        if self.nest.few == "out":
            flat = [f % self.width * lanes + f // self.width for f in range(count * lanes)]
        elif self.nest.few == "in":
            flat = [o * self.height + r for r in range(self.height) for o in range(lanes)]
        else:
            dtype = str(self.nest.loads[self.nest.crossing[0]].ty.dtype)
            return interleavings(lanes) if dtype in _BYTES else transposition(lanes)
        return [[(everything, flat[i * lanes : (i + 1) * lanes]) for i in everything]]

    def _store(self, at: list[Expr], tiles: dict[int, Any]) -> Statement:
        """The block's own computation, of vectors that stand in registers."""
        body, loads = self.nest.block.body, self.nest.loads
        flat = self.nest.few == "out"
        rows = self.width if flat else self.height
        row, lane = counter("row"), counter("lane")

        def place(i: int) -> Expr:
            if flat:
                return at[i] + row * self.lanes + lane
            return at[i] + row * self.row.steps[i] + lane * self.column.steps[i]

        def value(load: Any) -> Expr:
            i = next(i for i, known in enumerate(loads) if known.same_as(load))
            if i in tiles:
                return tiles[i][row * self.lanes + lane]
            return load.source[_flat_indices(load.source, place(i + 1))]

        computed = structural_map(body.value, (TensorLoad, value))
        store = tirx.BufferStore(body.buffer, computed, _flat_indices(body.buffer, place(0)))
        vector = loop(lane, self.lanes, store, tirx.ForKind.VECTORIZED)
        return loop(row, rows, vector, tirx.ForKind.UNROLLED)


def transposition(side: int) -> list[list[tuple[list[int], list[int]]]]:
    """Swap ever larger halves of two rows: after log2(side) stages rows are columns.

    For each stage and row: the two rows that it is made of, and which of their elements.
    """
    stages: list[list[tuple[list[int], list[int]]]] = []
    half = 1
    while half < side:
        stage: list[tuple[list[int], list[int]]] = []
        for row in range(side):
            low = row & ~half
            lanes = range(side)
            if row == low:
                order = [k if not k & half else side + (k & ~half) for k in lanes]
            else:
                order = [k | half if not k & half else side + k for k in lanes]
            stage.append(([low, low | half], order))
        stages.append(stage)
        half *= 2
    return stages


def interleavings(side: int) -> list[list[tuple[list[int], list[int]]]]:
    """Interleave rows with those half of all rows further: for vectors that fill 128 bits.

    After log2(side) stages rows are columns too, and each shuffle is one instruction.
    """
    half = side // 2
    low = [k // 2 + side * (k % 2) for k in range(side)]
    high = [half + k for k in low]
    stage = [([i // 2, half + i // 2], high if i % 2 else low) for i in range(side)]
    return [stage] * (side.bit_length() - 1)


def _vector(buffer: Any, at: Expr, lanes: int) -> Expr:
    return buffer.vload(_flat_indices(buffer, at), f"{buffer.dtype}x{lanes}")


def _vector_store(buffer: Any, i: int, value: Expr) -> Statement:
    lanes = int(value.ty.dtype.lanes)
    return tirx.BufferStore(buffer, value, [tirx.Ramp(long(i * lanes), long(1), lanes)])


def _flat_indices(buffer: Any, at: Expr) -> list[Expr]:
    """Indices of the element `at` places behind the first, whatever the shape."""
    return [*[long(0)] * (len(buffer.shape) - 1), at]


def _buffer(size: int, dtype: str) -> Any:
    return tirx.decl_buffer((long(size),), dtype, "tile")


def _int(value: int) -> Expr:
    return tirx.const(value, "int32")


def _up(value: int, divisor: int) -> int:
    return -(-value // divisor)
