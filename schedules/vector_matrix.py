"""Products of very few rows with a matrix that is no constant: read once, as it lies."""

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import Target
from hybridc.schedules.loops import analysis
from hybridc.schedules.products import contraction, tiling
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.problem import Problem

# Rows up to which a packed copy of the matrix takes longer than what it saves.
_MOST_ROWS = 4
# Rows of the matrix that are read side by side: as many streams from memory.
_STREAMS = 4


@dataclass(frozen=True)
class VectorMatrix(ScheduleRule):
    """Schedule `a[..., m, k] * b[..., k, n]` for few m without packing b."""

    priority: ClassVar[int] = 62

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take products of two activations with few rows, the other read along its columns."""
        found = contraction.find_product(func, "batch-matmul")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        *batch, rows, _, depth = contraction.extents(schedule, product)
        columns = contraction.extents(schedule, schedule.get_consumers(product)[0])[-1]
        if rows > _MOST_ROWS:
            return NotApplicable(f"it has {rows} rows, more than {_MOST_ROWS}")
        lanes = target.lanes()
        if columns % lanes:
            return NotApplicable("its columns are not whole vectors")
        packs = [b for b in schedule.get_producers(product) if _packs(schedule, b, lanes)]
        if len(packs) != 1:
            return NotApplicable("no operand is packed from rows that lie as they are read")
        size = depth * 4
        problem = Problem(prod(batch), 1, rows, columns, depth, size, rows * size, lanes)
        return Contraction(func, target, problem)

    def knobs(self, match: Contraction) -> Space:
        """Vectors of columns in a task; rows of the matrix that are read side by side."""
        vectors = match.problem.columns // match.problem.lanes
        streams = [d for d in tiling.divisors(match.problem.depth) if d <= 4 * _STREAMS]
        return {"vectors": tiling.divisors(vectors), "streams": tuple(streams)}

    def default(self, match: Contraction, target: Target) -> Point:
        """Long rows, in as many tasks as occupy the threads."""
        vectors = match.problem.columns // match.problem.lanes
        even = [
            d
            for d in tiling.divisors(vectors)
            if match.problem.images * (vectors // d) % target.threads == 0
        ]
        streams = tiling.divisor_below(match.problem.depth, _STREAMS)
        return {"vectors": max(even or [1]), "streams": streams}

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Sums stay in the L1 cache while some rows at a time pass by."""
        schedule, product, store = contraction.opened(match)
        for pack in schedule.get_producers(product):
            schedule.compute_inline(pack)
        lanes = match.problem.lanes
        *outer, columns = schedule.get_loops(store)
        leading = outer[: len(outer) - _inner(schedule, store, match)]
        task, columns = schedule.split(columns, [None, point["vectors"] * lanes])
        schedule.reorder(*leading, task, *outer[len(leading) :], columns)
        task = schedule.fuse(*leading, task)
        if int(schedule.get(task).extent) > 1:
            schedule.parallel(task)
        contraction.vectorize_copy(schedule, columns, lanes)
        schedule.compute_at(product, task, preserve_unit_loops=True)
        *_, row, column, depth = schedule.get_loops(product)
        vector, lane = schedule.split(column, [None, lanes])
        depth, stream = schedule.split(depth, [None, point["streams"]])
        schedule.reorder(depth, vector, row, stream, lane)
        schedule.vectorize(lane)
        schedule.unroll(row)
        schedule.unroll(stream)
        schedule.decompose_reduction(product, depth)
        return schedule


def _packs(schedule: Schedule, block: Any, lanes: int) -> bool:
    """Whether a block packs a matrix whose rows lie behind each other."""
    found = analysis.describe(schedule.get(block))
    last = list(found.spatial)[-1]
    strides = {found.stride(load, last) for load in found.loads}
    return found.spatial[last] == lanes and strides == {1}


def _inner(schedule: Schedule, store: Any, match: Contraction) -> int:
    """How many of the store's axes before the columns are the product's rows."""
    extents = contraction.extents(schedule, store)[:-1]
    count = 0
    while prod(extents[len(extents) - count :]) < match.problem.rows:
        count += 1
    return count
