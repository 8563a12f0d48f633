"""Packs operands through registers: transposed where they lie along the depth, else interleaved.

A packed operand holds, for each vector of columns and each step of the depth, one vector of 32-bit
lanes: a float32 for each column, or a pair of narrow numbers that follow each other in the depth.
What it is packed from lies along the depth (then tiles of rows become columns), or along the
columns (then pairs come from two rows).  Loops of single elements would load and store each by
itself.
"""

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir import Schedule as TVMSchedule
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import Schedule
from hybridc.schedules.loops import access, register_tiles
from hybridc.schedules.loops.statements import number_like
from hybridc.schedules.loops.vector_loops import substitute
from hybridc.schedules.products import contraction

Expr = Any  # tvm.ir.Expr
Statement = Any  # tvm.tirx.Stmt

# A transposed tile of fewer rows saves nothing.
_LEAST_SIDE = 4


@dataclass(frozen=True)
class Operand:
    """What the block `name` packs: `depth` x `columns`, in groups of `group` of the depth."""

    name: str
    depth: int
    columns: int
    group: int


@dataclass(frozen=True)
class _Block:
    """A packing block: axes step, lane and perhaps one within the group come last."""

    operand: Operand
    axes: tuple[Any, ...]
    extents: tuple[int, ...]
    store: Any
    load: Any

    @property
    def inner(self) -> int:
        """How many axes the loops to be replaced run over."""
        return 2 + (self.operand.group > 1)

    @property
    def steps(self) -> int:
        return self.extents[-self.inner]

    @property
    def lanes(self) -> int:
        return self.extents[1 - self.inner]

    @property
    def side(self) -> int:
        """The side of the tiles that are transposed; 0 if the source is not along the depth."""
        step, *_, last = self.axes[-self.inner :]
        group = self.operand.group
        contiguous = self._stride(step) == group and (group == 1 or self._stride(last) == 1)
        whole = self.operand.depth % group == 0
        side = 1 << (min(self.lanes, self.steps).bit_length() - 1)
        return side if contiguous and whole and side >= _LEAST_SIDE else 0

    @property
    def interleaved(self) -> bool:
        """Whether pairs come from two vectors of the source."""
        rest = self.operand.columns % self.lanes
        along = self._stride(self.axes[1 - self.inner]) == 1
        return self.operand.group == 2 and along and rest != 1  # there are no vectors of one lane

    def _stride(self, axis: Any) -> int | None:
        return access.stride(self.load.indices, self.load.source, axis)


def flatten(schedule: Schedule, operand: Operand) -> None:
    """Make one axis of lanes and groups, so that what stores a vector of both says so."""
    if operand.group == 1:
        return

    def flat(*index: Any) -> list[Any]:
        *outer, lane, part = index
        return [*outer, lane * operand.group + part]

    stage = schedule.get_sblock(operand.name)
    rank = len(schedule.get(stage).writes[0].source.shape)
    layout = tirx.IndexMap.from_func(flat, ndim=rank, index_dtype="int32")
    schedule.transform_layout(stage, ("write", 0), layout)


def prepare(schedule: Schedule, operand: Operand, task: Any | None) -> None:
    """Place a packing block: in `task`, or beforehand on all threads where there is none."""
    stage = schedule.get_sblock(operand.name)
    found = _described(schedule.get(stage), operand)
    registers = found.side or found.interleaved
    if task is None and not registers:
        contraction.spread(schedule, stage)
    elif task is None:
        outer = schedule.get_loops(stage)[: -found.inner]
        schedule.parallel(schedule.fuse(*outer))
    else:
        schedule.compute_at(stage, task, preserve_unit_loops=True)
        if not registers:
            contraction.vectorize_copy(schedule, schedule.get_loops(stage)[-1])


def implement(schedule: Schedule, *operands: Operand) -> Schedule:
    """Put shuffles in place of the loops of packing blocks; nothing can be scheduled behind it."""
    by_name = {operand.name: operand for operand in operands}

    def loop(node: Any) -> Any:
        realize = node.body
        while isinstance(realize, tirx.For):
            realize = realize.body
        if not isinstance(realize, s_tir.SBlockRealize):
            return node
        operand = by_name.get(str(realize.block.name_hint))
        if operand is None:
            return node
        block = _described(realize.block, operand)
        if not realize.iter_values[-block.inner].same_as(node.loop_var):
            return node
        if block.side:
            return _transposed(block, realize.iter_values)
        return _interleaved(block, realize.iter_values) if block.interleaved else node

    func = schedule.mod["main"]
    body = structural_map(func.body, (tirx.For, loop))
    if body.same_as(func.body):
        return schedule
    return TVMSchedule(tvm.IRModule({"main": func.with_body(body)}), error_render_level="fast")


def _described(block: Any, operand: Operand) -> _Block:
    loads: list[Any] = []
    structural_walk(block.body, (TensorLoad, loads.append))
    axes = tuple(axis.var for axis in block.iter_vars)
    extents = tuple(int(axis.dom.extent) for axis in block.iter_vars)
    return _Block(operand, axes, extents, block.body, loads[0])


def _transposed(block: _Block, values: Any) -> Statement:
    """Tiles of `side` rows that lie along the depth, `side` lanes of the packed vectors."""
    side, group = block.side, block.operand.group
    dtype = "float32" if group == 1 else "int32"
    like = block.axes[0]
    tile, part = (tirx.Var(name, like.ty) for name in ("tile", "part"))
    # The last tile ends with the depth; what it has in common with the one before is the same.
    start = tirx.min(tile * side, number_like(block.steps - side, like))
    stages = [tirx.decl_buffer((side * side,), dtype, "tile")]
    made = []
    for row in range(side):
        at = _bound(block, values, start, part * side + row)
        load = _vector(block.load, at, side * group)
        kind = f"{dtype}x{side}"
        value = tirx.Cast(kind, load) if group == 1 else tirx.reinterpret(kind, load)
        made.append(_tile_store(stages[0], row, value))
    for pattern in register_tiles.transposition(side):
        source, target = stages[-1], tirx.decl_buffer((side * side,), dtype, "tile")
        rows = [_tile_row(source, row, side) for row in range(side)]
        for row, (operands, order) in enumerate(pattern):
            lanes = [tirx.const(lane, "int32") for lane in order]
            shuffled = tirx.Shuffle([rows[i] for i in operands], lanes)
            made.append(_tile_store(target, row, shuffled))
        stages.append(target)
    for row in range(side):
        value = _tile_row(stages[-1], row, side)
        made.append(_packed_store(block, values, start + row, part * side, value))
    body = _opaque(tirx.SeqStmt(made), stages)
    body = _loop(part, block.lanes // side, body)
    return _loop(tile, -(-block.steps // side), body)


def _interleaved(block: _Block, values: Any) -> Statement:
    """Pairs of rows, element by element; zeros behind the last row and the last column."""
    operand, lanes = block.operand, block.lanes
    whole, rest = divmod(operand.columns, lanes)
    if not rest:
        return _pairs(block, values, lanes)
    if not whole:
        return _pairs(block, values, rest)
    column = values[-block.inner - 1]
    inside = column < number_like(whole, column)
    return tirx.IfThenElse(inside, _pairs(block, values, lanes), _pairs(block, values, rest))


def _pairs(block: _Block, values: Any, width: int) -> Statement:
    """One vector of columns, of which `width` are there, at every step of the depth."""
    like = block.axes[0]
    step = tirx.Var("step", like.ty)
    pairs, odd = divmod(block.operand.depth, 2)
    statements: list[Statement] = []
    if pairs:
        statements.append(_loop(step, pairs, _pair(block, values, step, width, last=False)))
    if odd:
        at = number_like(pairs, like)
        statements.append(_pair(block, values, at, width, last=True))
    return tirx.SeqStmt(statements) if len(statements) > 1 else statements[0]


def _pair(block: _Block, values: Any, step: Expr, width: int, last: bool) -> Statement:
    zeros = tirx.Broadcast(tirx.const(0, "uint16"), 2 * block.lanes)
    rows = [tirx.Broadcast(tirx.const(0, "uint16"), width)] * 2
    for row in range(1 if last else 2):
        at = _bound(block, values, step, number_like(0, step), row)
        rows[row] = tirx.reinterpret(f"uint16x{width}", _vector(block.load, at, width))
    # Lanes behind the last column are zeros, which stand behind both rows.
    order = [
        row * width + lane if lane < width else 2 * width
        for lane in range(block.lanes)
        for row in range(2)
    ]
    value = tirx.Shuffle([*rows, zeros], [tirx.const(place, "int32") for place in order])
    store = _packed_store(block, values, step, number_like(0, step), value)
    return _opaque(store, [])


def _bound(block: _Block, values: Any, step: Expr, lane: Expr, row: int = 0) -> dict[Any, Expr]:
    """The block's axes at one step, lane and place in the group."""
    inner = [step, lane, number_like(row, lane)][: block.inner]
    return dict(zip(block.axes, [*values[: -block.inner], *inner], strict=True))


def _vector(load: Any, at: dict[Any, Expr], lanes: int) -> Expr:
    """Neighbouring elements from where `load` is with its axes there."""
    *lead, last = (substitute(index, at) for index in load.indices)
    return tirx.BufferLoad(load.source, [*lead, tirx.Ramp(last, number_like(1, last), lanes)])


def _packed_store(block: _Block, values: Any, step: Expr, lane: Expr, value: Expr) -> Statement:
    """Store a vector of 32-bit lanes, or what these are made of."""
    at = _bound(block, values, step, lane)
    *lead, last = (substitute(index, at) for index in block.store.indices)
    group, dtype = block.operand.group, str(block.store.buffer.dtype)
    count = bits_of(value) // (32 // group)
    if group > 1:
        narrow = tirx.reinterpret(f"uint16x{count}", value)
        value = tirx.reinterpret(f"{dtype}x{count}", narrow)
    index = [*lead, tirx.Ramp(last, number_like(1, last), count)]
    return tirx.BufferStore(block.store.buffer, value, index)


def bits_of(value: Expr) -> int:
    """The bits of a vector."""
    dtype = tvm.DataType(str(value.ty.dtype))
    return int(dtype.bits) * int(dtype.lanes)


def _tile_row(tile: Any, row: int, side: int) -> Expr:
    return tirx.BufferLoad(tile, [tirx.Ramp(row * side, 1, side)])


def _tile_store(tile: Any, row: int, value: Expr) -> Statement:
    lanes = int(tvm.DataType(str(value.ty.dtype)).lanes)
    return tirx.BufferStore(tile, value, [tirx.Ramp(row * lanes, 1, lanes)])


def _opaque(body: Statement, buffers: list[Any]) -> Statement:
    block = s_tir.SBlock([], [], [], "packing", body, alloc_buffers=buffers)
    return s_tir.SBlockRealize([], True, block)


def _loop(var: Any, extent: int, body: Statement) -> Statement:
    return tirx.For(var, number_like(0, var), number_like(extent, var), tirx.ForKind.SERIAL, body)
