"""Matrix products of few rows with weights of 8 or 4 bits, added up group by group in registers."""

from dataclasses import dataclass
from typing import Any, ClassVar

import tvm

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule, Space
from hybridc.compiler.kernels.grouped_weights import (
    KIND,
    OFFSETS,
    PARTIAL,
    SCALED,
    STRIDED,
    SUMS,
    fits,
)
from hybridc.compiler.target import Target
from hybridc.schedules.products import contraction, tiling
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.problem import Problem
from hybridc.schedules.products.tiled import Tiled

# Cycles to make a float32 vector of integers: an `and` or a widening load, and a conversion.
_UNPACK = 0.6
# Inputs that are unpacked side by side, where a word does not say how many.
_UNROLL = 8
_PAD = "pad"
# The two steps in which activations are added up, for integers without signs and for zero points.
_TOTALS = (OFFSETS, SUMS)
_STRIDED = tuple(f"{name}_{STRIDED}" for name in _TOTALS)


@dataclass(frozen=True)
class Grouped(Contraction):
    """A product with packed integers: panels of `width` columns, groups of `size` inputs.

    An element of the packed weights holds `share` integers.
    """

    width: int
    size: int
    share: int


@dataclass(frozen=True)
class GroupedWeights(Tiled):
    """Schedule products of few rows with weights of 8 or 4 bits: a tile has sums of two kinds.

    Those of a group start at nothing for each group, and join those of all by its scale.  Bytes
    are all that comes from memory, and a weight costs two instructions beside its multiply-add.
    """

    priority: ClassVar[int] = 83

    def match(self, func: PrimFunc, target: Target) -> Grouped | NotApplicable:
        """Take kernels that `quantize-weights` made for few rows."""
        found = contraction.find_product(func, KIND, (PARTIAL, *_STRIDED, *_TOTALS))
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        rows, _, groups = contraction.extents(schedule, product)
        columns = contraction.extents(schedule, schedule.get_consumers(product)[0])[-1]
        partial = contraction.named(schedule, PARTIAL)
        size = contraction.extents(schedule, partial)[-1]
        depth = groups * size
        integers, scales = (_parameter(schedule, block) for block in (partial, product))
        share, width = depth // int(integers.shape[1]), int(scales.shape[2])
        held = (0.5 if share > 1 else 1.0) + tvm.DataType(str(scales.dtype)).itemsize / size
        problem = Problem(
            *(1, 1, rows, columns, depth, depth * 4, rows * depth * 4, target.lanes()),
            weight_bytes=held,
            unpacking=_UNPACK,
        )
        return Grouped(func, target, problem, width, size, share)

    def knobs(self, match: Grouped) -> Space:
        """Rows and vectors of the tile; panels of a task."""
        space = tiling.space(match.problem, match.target)
        whole = tuple(v for v in space["vectors"] if match.width % (v * match.problem.lanes) == 0)
        rows = (match.problem.rows,) if fits(match.problem.rows) else space["rows"]
        return {**space, "rows": rows, "vectors": whole or (1,), "chunk": (1,)}

    def default(self, match: Grouped, target: Target) -> Point:
        """As many rows as there are registers for, as many vectors as hide a sum's latency."""
        space = self.knobs(match)
        fitting = [
            (rows, v)
            for v in space["vectors"]
            for rows in space["rows"]
            if _registers(rows, v) <= target.vector_registers
        ]
        # Of each vector of weights, the sums of its rows share what unpacks it.
        rows, vectors = max(fitting, key=lambda tile: (tile[0] * tile[1], tile[0]), default=(1, 1))
        return {"rows": rows, "vectors": vectors, "chunk": 1, "panels": 1}

    def schedule(self, match: Grouped, point: Point) -> Schedule:
        """Tile the product over its groups, and compute each group's sums within."""
        schedule = contraction.new_schedule(match.func)
        product = contraction.product_of(schedule)
        store = contraction.inline_epilogue(schedule, product, (SCALED, *_STRIDED, *_TOTALS, _PAD))
        contraction.tile(match, schedule, product, store, point)
        self._sums_of_groups(schedule, product, match)
        for name in (_PAD, SCALED, *_STRIDED):
            if (block := contraction.named(schedule, name)) is not None:
                last = schedule.get_loops(block)[-1]
                if name in _STRIDED:
                    *_, lane, word = schedule.get_loops(block)
                    schedule.reorder(word, lane)
                    last = lane
                contraction.vectorize_copy(schedule, last, match.problem.lanes)
        return schedule

    def _sums_of_groups(self, schedule: Schedule, product: Any, match: Grouped) -> None:
        """Integers times activations of one group, in registers: depth outside, tile inside."""
        partial = contraction.named(schedule, PARTIAL)
        *_, group, _, _, _ = schedule.get_loops(product)
        schedule.compute_at(partial, group, preserve_unit_loops=True)
        *_, row, column, _, depth = schedule.get_loops(partial)
        part, lane = schedule.split(column, [None, match.problem.lanes])
        width = match.share if match.share > 1 else tiling.divisor_below(match.size, _UNROLL)
        step, element = schedule.split(depth, [None, width])
        schedule.reorder(step, element, row, part, lane)
        contraction.straighten(schedule, lane, part, row, element)
        init = schedule.decompose_reduction(partial, step)
        *_, first, second, _ = schedule.get_loops(init)
        schedule.unroll(first)
        schedule.unroll(second)


def _parameter(schedule: Schedule, block: Any) -> Any:
    """The first parameter of three axes that a block reads: integers, or scales."""
    func = schedule.mod["main"]
    return next(
        read.source
        for read in schedule.get(block).reads
        if len(read.source.shape) == 3 and any(read.source.same_as(p) for p in func.params)
    )


def _registers(rows: int, vectors: int) -> int:
    """Sums of all, sums of a group, weights, and an activation."""
    return 2 * rows * vectors + vectors + 2
