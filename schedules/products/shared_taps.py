"""Windows of few channels: what a tile reads of an image row serves every tap that it is under.

A register tile of one vector of channels loads an activation for each multiply-add, and the loads
take longer.  So the taps of a window's row are unrolled and their multiply-adds ordered by the
column of the image that they read: it is loaded once, and multiplied by up to all of them.

Where a vector holds several small groups, each of its lanes reads the channels of its own group:
the tile then loads whole vectors, and shuffles the k-th channel of each group to all of its lanes.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import tvm
from tvm import s_tir, sym, tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules.loops import access, vector_loops
from hybridc.schedules.loops.statements import number_like
from hybridc.schedules.products import contraction, operands, registers
from hybridc.schedules.products.problem import Problem

Statement = Any  # tvm.tirx.Stmt

# Marks the loop over the depth outside of a window's columns, which are ordered inside of it; the
# value is the channels of a group where a vector holds several, else 1.
_MARK = "hybridc.taps"
_FLOAT32 = 4


# Channels from which on the taps in a padding are skipped one by one, and each reads for itself.
_DEEP = 16
# Columns of a window whose weights find registers beside eight accumulators.
_WIDEST = 7


def shared(schedule: Schedule, product: Any, target: Target) -> int:
    """The columns of a product's window that share what they read; 1 where each reads anew.

    Only among groups, whose tiles are one vector wide: 3 to 64 channels, 7x7 at 224x224, took 1.4
    times as long in this order as in tiles of several vectors (Zen 3).
    """
    columns, depth = contraction.extents(schedule, product)[-2:]
    few = depth < _DEEP and depth < contraction.source_shape(schedule, product)[3]
    wide = operands.source_bytes(schedule, product) == _FLOAT32
    wide = wide and not operands.paired(schedule, product)
    # A load costs nothing where a multiply-add broadcasts what it brings.
    embedded = target.vector_registers >= registers.EMBEDDED
    return columns if few and wide and columns <= _WIDEST and not embedded else 1


def mark(schedule: Schedule, update: Any, problem: Problem) -> None:
    """Bring a product's loops into the order that `ordered` takes, and mark them for it."""
    *_, column, depth, _, _, _ = schedule.get_loops(update)
    schedule.reorder(depth, column)
    schedule.annotate(depth, _MARK, problem.group)


def ordered(func: PrimFunc) -> PrimFunc:
    """The scheduled function with the multiply-adds of what is marked ordered by columns."""
    return func.with_body(structural_map(func.body, (tirx.For, _written)))


def _written(loop: Any) -> Any:
    if _MARK not in loop.annotations:
        return loop
    group = int(loop.annotations[_MARK])
    if group == 1:
        marks = {key: value for key, value in loop.annotations.items() if key != _MARK}
        body = tirx.SeqStmt(list(_updates(loop.body)))
        return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, None, marks)
    updates: list[Statement] = []
    for k in range(int(loop.extent)):
        inner = vector_loops.copied(loop.body, {loop.loop_var: number_like(k, loop.loop_var)})
        updates += _updates(_shuffled(inner, k, group))
    # TVM compares each block with every other that writes what it does.
    return tirx.SeqStmt([structural_map(x, (s_tir.SBlockRealize, _bare)) for x in updates])


def _bare(realize: Any) -> Statement:
    """What a block does, without the block."""
    axes = [axis.var for axis in realize.block.iter_vars]
    body = vector_loops.substitute(
        realize.block.body, dict(zip(axes, realize.iter_values, strict=True))
    )
    certain = isinstance(realize.predicate, tirx.IntImm) and int(realize.predicate)
    return body if certain else tirx.IfThenElse(tirx.likely(realize.predicate), body, None)


def _updates(column: Any) -> Iterator[Statement]:
    """The updates of each tap and pixel of a tile, in the order of what they read."""
    row = column.body
    taps, rows = int(column.extent), int(row.extent)
    steps = _steps(column, [column.loop_var, row.loop_var])

    def place(pair: tuple[int, int]) -> tuple[int, int]:
        return pair[0] * steps[0] + pair[1] * steps[1], pair[0]

    for tap, pixel in sorted(product(range(taps), range(rows)), key=place):
        at = {column.loop_var: number_like(tap, column.loop_var)}
        at[row.loop_var] = number_like(pixel, row.loop_var)
        yield vector_loops.copied(row.body, at)


def _steps(nest: Any, variables: Sequence[Any]) -> list[int]:
    """How many columns of the image one step of each variable is."""
    found: list[Any] = []
    structural_walk(nest, (s_tir.SBlockRealize, found.append))
    (realize,) = found
    block = realize.block
    axes = [axis.var for axis in block.iter_vars]
    image = _operands(block)[1]
    index = vector_loops.substitute(
        image.indices[2], dict(zip(axes, realize.iter_values, strict=True))
    )
    linear = sym.detect_linear_equation(index, list(variables))
    return [int(access.simplify(step)) for step in linear[:-1]]


def _operands(block: Any) -> tuple[Any, Any, Any]:
    """The loads of an update `sum = sum + image * weight`."""
    loads: list[TensorLoad] = []
    (sums,) = block.writes
    structural_walk(block.body, (TensorLoad, loads.append))
    total = next(load for load in loads if load.source.same_as(sums.source))
    image, weight = (load for load in loads if not load.source.same_as(sums.source))
    return total, image, weight


def _shuffled(updates: Statement, k: int, group: int) -> Statement:
    """Updates whose lanes read channel k of their group each, as those of vectors."""
    return structural_map(updates, (tirx.For, lambda loop: _on_vectors(loop, k, group)))


def _on_vectors(loop: Any, k: int, group: int) -> Any:
    if int(loop.kind) != tirx.ForKind.VECTORIZED:
        return loop
    realize, lanes = loop.body, int(loop.extent)
    block = realize.block
    total, image, weight = _operands(block)
    first = {loop.loop_var: number_like(0, loop.loop_var)}
    values = [access.simplify(vector_loops.substitute(v, first)) for v in realize.iter_values]
    channel = total.indices[-1]
    order = [tirx.const(lane // group * group + k, "int32") for lane in range(lanes)]
    data = _vector(image, channel, lanes)
    weights = _vector(weight, number_like(0, weight.indices[-1]), lanes)
    sums = _vector(total, channel, lanes)
    value = sums + tirx.Shuffle([data], order) * weights
    store = tirx.BufferStore(total.source, value, sums.indices)
    # What lies in a padding is skipped for all lanes at once.
    body = structural_map(block.body, (tirx.BufferStore, lambda _: store))
    made = s_tir.SBlock(
        block.iter_vars,
        [_region(read) for read in (sums, data, weights)],
        [_region(sums)],
        block.name_hint,
        body,
        annotations=block.annotations,
    )
    return s_tir.SBlockRealize(values, realize.predicate, made)


def _vector(load: Any, first: Any, lanes: int) -> Any:
    return tirx.BufferLoad(load.source, [*load.indices[:-1], tirx.Ramp(first, 1, lanes)])


def _region(vector: Any) -> Any:
    """What a load of a vector reads."""
    *outer, last = vector.indices
    ranges = [tvm.ir.Range.from_min_extent(i, number_like(1, i)) for i in outer]
    ranges.append(tvm.ir.Range.from_min_extent(last.base, number_like(int(last.lanes), last.base)))
    return tirx.BufferRegion(vector.source, ranges)
