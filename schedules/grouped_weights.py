"""Matrix products of few rows with weights of 8 or 4 bits, added up group by group in registers."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule, Space
from hybridc.compiler.kernels.products.grouped_weights import (
    KIND,
    OFFSETS,
    PARTIAL,
    SCALED,
    STRIDED,
    SUMS,
    fits,
)
from hybridc.compiler.target import Target
from hybridc.schedules.products import contraction, groups, tiling
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.groups import PAD
from hybridc.schedules.products.problem import Problem
from hybridc.schedules.products.tiled import Tiled

# Cycles to make a float32 vector of integers: an `and` or a widening load, and a conversion.
_UNPACK = 0.6
# Inputs that are unpacked side by side, where a word does not say how many.
_UNROLL = 8
# Bytes of an activation.
_FLOAT = 4
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
        found = groups.find(func, KIND, PARTIAL, (*_STRIDED, *_TOTALS))
        if isinstance(found, NotApplicable):
            return found
        row = found.depth * _FLOAT
        problem = Problem(
            *(1, 1, found.rows, found.columns, found.depth, row, found.rows * row, target.lanes()),
            weight_bytes=(0.5 if found.share > 1 else 1.0) + found.bytes_of_scale,
            unpacking=_UNPACK,
        )
        return Grouped(func, target, problem, found.width, found.size, found.share)

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
        store = contraction.inline_epilogue(schedule, product, (SCALED, *_STRIDED, *_TOTALS, PAD))
        contraction.tile(match, schedule, product, store, point)
        self._sums_of_groups(schedule, product, match)
        names = (PAD, SCALED, *_STRIDED)
        groups.vectorize_feeding(schedule, names, _STRIDED, match.problem.lanes)
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


def _registers(rows: int, vectors: int) -> int:
    """Sums of all, sums of a group, weights, and an activation."""
    return 2 * rows * vectors + vectors + 2
