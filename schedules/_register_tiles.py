"""Transposes through registers: tiles are read along one axis, shuffled, and written along another.

A kernel qualifies where every load and the store move by constant strides over its axes, so that
axes can be merged and tiles may begin anywhere.  Tiles at the end overlap those before them: what
is computed twice is the same both times.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import tvm
from tvm import s_tir, sym, tirx
from tvm.ir.expr import Call, TensorLoad
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules import _access, _analysis

Expr = Any  # tvm.ir.Expr
Statement = Any  # tvm.tirx.Stmt

# Rows and lanes of a square tile: 8 loads, 24 shuffles of two vectors, 8 stores in 16 registers.
SIDE = 8
# Pixels with up to as many channels are parted and joined by shuffles of as many vectors.
_FEW = 4
# Lanes of the vectors that these shuffles take at most; more would only make more code.
_LANES = 16
_TYPES = frozenset(
    {f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)}
)


@dataclass(frozen=True)
class Axis:
    """An axis of the nest: how far one step on it moves the store, and each load, in elements."""

    extent: int
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Nest:
    """`axes` in the order of the output; `start` is where the store and the loads begin.

    `rows` is the position of the axis along which the `crossing` loads (their indices) are
    contiguous; the last axis is the one along which the store is.  `few` tells which of the two
    is a few channels of each pixel: "in", "out" or neither.
    """

    block: _analysis.Block
    axes: tuple[Axis, ...]
    start: tuple[int, ...]
    loads: tuple[Any, ...]
    rows: int
    crossing: tuple[int, ...]
    few: str
    lanes: int

    @property
    def height(self) -> int:
        """The rows of a tile."""
        return {"": SIDE, "out": self.lanes, "in": self.axes[self.rows].extent}[self.few]

    @property
    def width(self) -> int:
        """The columns of a tile."""
        return {"": SIDE, "out": self.axes[-1].extent, "in": self.lanes}[self.few]


def analyse(block: _analysis.Block, lanes: int) -> Nest | None:
    """The nest of a transposing block; None where tiles of it do not fit registers."""
    block = _split(block)
    loads = tuple(block.loads)
    if not loads or not _straight(block):
        return None
    axes = list(block.spatial)
    accesses = [(block.body.indices, block.body.buffer), *((x.indices, x.source) for x in loads)]
    moves = [_linear(indices, buffer, axes) for indices, buffer in accesses]
    if any(move is None for move in moves):
        return None
    steps = tuple(zip(*(move[:-1] for move in moves), strict=True))  # type: ignore[index]
    extents = [Axis(e, s) for e, s in zip(block.spatial.values(), steps, strict=True) if e > 1]
    start = tuple(move[-1] for move in moves)  # type: ignore[index]
    return _with_rows(Nest(block, _merged(extents), start, loads, 0, (), "", min(lanes, _LANES)))


def _split(block: _analysis.Block) -> _analysis.Block:
    """The block with axes parted where its indices divide them, as reshapes leave them."""
    while (found := _divided(block)) is not None:
        block = _parted(block, *found)
    return block


def _parted(block: _analysis.Block, axis: Any, inner: int) -> _analysis.Block:
    """The block with `axis` as two, of which the inner one has this extent."""
    outer, lower = (tirx.Var(f"{axis.name}_{i}", axis.ty) for i in range(2))
    spatial: dict[Any, int] = {}
    for var, extent in block.spatial.items():
        spatial |= {outer: extent // inner, lower: inner} if var.same_as(axis) else {var: extent}
    analyzer = sym.Analyzer()
    for var, extent in spatial.items():
        zero, count = (tirx.const(value, str(var.ty.dtype)) for value in (0, extent))
        analyzer.bind(var, tvm.ir.Range(zero, count))
    whole = outer * inner + lower
    body = structural_map(block.body, (type(axis), lambda v: whole if v.same_as(axis) else v))
    body = structural_map(body, (_access.DIVISIONS, analyzer.simplify))
    return replace(block, body=body, spatial=spatial)


def _divided(block: _analysis.Block) -> tuple[Any, int] | None:
    """An axis that is divided by a divisor of its extent, and the largest such divisor."""
    found: list[tuple[Any, int]] = []

    def visit(node: Any) -> None:
        for axis in block.spatial:
            if node.a.same_as(axis) and isinstance(node.b, tirx.IntImm):
                found.append((axis, int(node.b)))

    structural_walk(block.body, (_access.DIVISIONS, visit))
    even = [
        (axis, divisor)
        for axis, divisor in found
        if 1 < divisor < block.spatial[axis] and block.spatial[axis] % divisor == 0
    ]
    return max(even, key=lambda pair: pair[1], default=None)


def _straight(block: _analysis.Block) -> bool:
    """Whether a block computes from its loads alone, in types of whole bytes, without branches."""
    types = {str(x.ty.dtype) for x in block.loads} | {str(block.body.buffer.dtype)}
    calls: list[Any] = []
    structural_walk(block.body.value, (Call, calls.append))
    zero = {x: tirx.const(0, str(x.ty.dtype)) for x in block.loads}
    rest = structural_map(block.body.value, (TensorLoad, lambda x: zero.get(x, x)))
    return (
        types <= _TYPES
        and not any(_access.conditional(call) for call in calls)
        and not any(_access.uses(rest, axis) for axis in block.spatial)
    )


def _linear(indices: Any, buffer: Any, axes: Sequence[Any]) -> tuple[int, ...] | None:
    """How an access moves in its buffer with each axis, and where it starts."""
    place, scale = tirx.const(0, "int64"), 1
    for index, extent in zip(reversed(indices), reversed(buffer.shape), strict=True):
        place += (
            tirx.Cast("int64", index) * scale if str(index.ty.dtype) != "int64" else index * scale
        )
        scale *= int(extent)
    found = sym.detect_linear_equation(place, list(axes))
    parts = [_access.simplify(part) for part in found]
    if not parts or not all(isinstance(part, tirx.IntImm) for part in parts):
        return None
    return tuple(int(part) for part in parts)


def _merged(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Neighbouring axes as one wherever all accesses step over them evenly."""
    merged: list[Axis] = []
    for axis in axes:
        if merged and merged[-1].steps == tuple(step * axis.extent for step in axis.steps):
            merged.append(Axis(merged.pop().extent * axis.extent, axis.steps))
        else:
            merged.append(axis)
    return tuple(merged)


def _with_rows(nest: Nest) -> Nest | None:
    """Find the axis that the loads run along, and whether tiles fit it and the last one."""
    if len(nest.axes) < 2 or nest.axes[-1].steps[0] != 1:
        return None
    last = nest.axes[-1]
    crossing = tuple(i for i in range(len(nest.loads)) if last.steps[i + 1] not in (0, 1))
    along = [
        position
        for position, axis in enumerate(nest.axes[:-1])
        if crossing and all(axis.steps[i + 1] == 1 for i in crossing)
    ]
    if not along:
        return None
    nest = replace(nest, rows=along[-1], crossing=crossing)
    rows = nest.axes[nest.rows]
    if rows.extent >= SIDE and last.extent >= SIDE:
        return replace(nest, lanes=SIDE)
    if last.extent <= _FEW and rows.extent >= nest.lanes and _contiguous(nest):
        return replace(nest, few="out")
    joined = all(last.steps[i + 1] == rows.extent for i in crossing)
    if rows.extent <= _FEW and last.extent >= nest.lanes and joined:
        return replace(nest, few="in")
    return None


def _contiguous(nest: Nest) -> bool:
    """Whether pixels with few channels are written, and what else is read, in one stretch."""
    last, rows = nest.axes[-1], nest.axes[nest.rows]
    others = [0, *(i + 1 for i in range(len(nest.loads)) if i not in nest.crossing)]
    return all(last.steps[i] == 1 and rows.steps[i] == last.extent for i in others)


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
        task, tile, column = (_var(name) for name in ("task", "tile", "column"))
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
        body = _loop(tile, tirx.min(_long(rows), tiles - group * rows), body)
        body = _loop(column, _up(self.column.extent, self.width), body)
        kind = tirx.ForKind.PARALLEL if threads and count > 1 else tirx.ForKind.SERIAL
        body = _loop(task, count, body, kind)
        root = func.body.block
        block = s_tir.SBlock([], root.reads, root.writes, root.name_hint, body)
        return s_tir.SBlockRealize([], True, block)

    def _tile(self, places: list[tuple[Expr, Axis]]) -> Statement:
        """One tile: loads into vectors, shuffles, and what is computed of them."""
        at = [
            start + sum((place * axis.steps[i] for place, axis in places), _long(0))
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
            vectors = [_vector(source, _long(i * self.lanes), self.lanes) for i in range(count)]
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
            return _transposition()
        return [[(everything, flat[i * lanes : (i + 1) * lanes]) for i in everything]]

    def _store(self, at: list[Expr], tiles: dict[int, Any]) -> Statement:
        """The block's own computation, of vectors that stand in registers."""
        body, loads = self.nest.block.body, self.nest.loads
        flat = self.nest.few == "out"
        rows = self.width if flat else self.height
        row, lane = _var("row"), _var("lane")

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
        vector = _loop(lane, self.lanes, store, tirx.ForKind.VECTORIZED)
        return _loop(row, rows, vector, tirx.ForKind.UNROLLED)


def _transposition() -> list[list[tuple[list[int], list[int]]]]:
    """Swap ever larger halves of two rows: after log2(SIDE) stages rows are columns."""
    stages: list[list[tuple[list[int], list[int]]]] = []
    half = 1
    while half < SIDE:
        stage: list[tuple[list[int], list[int]]] = []
        for row in range(SIDE):
            low = row & ~half
            lanes = range(SIDE)
            if row == low:
                order = [k if not k & half else SIDE + (k & ~half) for k in lanes]
            else:
                order = [k | half if not k & half else SIDE + k for k in lanes]
            stage.append(([low, low | half], order))
        stages.append(stage)
        half *= 2
    return stages


def _vector(buffer: Any, at: Expr, lanes: int) -> Expr:
    return buffer.vload(_flat_indices(buffer, at), f"{buffer.dtype}x{lanes}")


def _vector_store(buffer: Any, i: int, value: Expr) -> Statement:
    lanes = int(value.ty.dtype.lanes)
    return tirx.BufferStore(buffer, value, [tirx.Ramp(_long(i * lanes), _long(1), lanes)])


def _flat_indices(buffer: Any, at: Expr) -> list[Expr]:
    """Indices of the element `at` places behind the first, whatever the shape."""
    return [*[_long(0)] * (len(buffer.shape) - 1), at]


def _buffer(size: int, dtype: str) -> Any:
    return tirx.decl_buffer((_long(size),), dtype, "tile")


def _loop(var: Any, extent: Any, body: Statement, kind: Any = tirx.ForKind.SERIAL) -> Statement:
    wide = _long(extent) if isinstance(extent, int) else extent
    return tirx.For(var, _long(0), wide, kind, body)


def _var(name: str) -> Any:
    return tirx.Var(name, "int64")


def _long(value: int) -> Expr:
    return tirx.const(value, "int64")


def _int(value: int) -> Expr:
    return tirx.const(value, "int32")


def _up(value: int, divisor: int) -> int:
    return -(-value // divisor)
