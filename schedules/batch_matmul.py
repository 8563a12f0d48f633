"""Products of two activations, such as attention's scores and values."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import Target
from hybridc.schedules import _contraction, _dot_products, _figures, _tiling
from hybridc.schedules._contraction import Contraction


@dataclass(frozen=True)
class BatchMatmul(ScheduleRule):
    """Schedule `a[..., m, k] * b[..., k, n]`: pack b, then register tiles as for weights."""

    priority: ClassVar[int] = 60

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `legalize` made from a product of two activations."""
        found = _contraction.find_product(func, "batch-matmul")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        *batch, rows, _, _ = _contraction.extents(schedule, product)
        store = schedule.get_consumers(product)[0]
        columns = _contraction.extents(schedule, store)[-1]
        depth = _contraction.steps(schedule, product)
        size = depth * 4
        problem = _tiling.Problem(
            prod(batch), 1, rows, columns, depth, size, rows * size, target.lanes()
        )
        return Contraction(func, target, problem)

    def knobs(self, match: Contraction) -> Space:
        """Rows and vectors of the register tile; row tiles and panels of a task."""
        return _tiling.space(match.problem, match.target)

    def default(self, match: Contraction, target: Target) -> Point:
        """The analytic model's choice."""
        return _tiling.default(match.problem, target)

    def figures(self, match: Contraction, point: Point) -> Mapping[str, float]:
        """Those of a tiled kernel."""
        return _figures.tiled(match.problem, self.canonical(match, point), match.target)

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile, and pack inside each task where a task is one whole product."""
        schedule = _contraction.new_schedule(match.func)
        product = _contraction.product_of(schedule)
        store = _contraction.inline_epilogue(schedule, product)
        feeding = schedule.get_producers(product)
        tiles = _contraction.tile(match, schedule, product, store, point)
        for pack in feeding:
            if tiles.whole_image and tiles.all_columns:
                schedule.compute_at(pack, tiles.task)
                _contraction.vectorize_copy(schedule, schedule.get_loops(pack)[-1])
            else:
                _contraction.spread(schedule, pack)
        return _dot_products.implement(schedule)

    def canonical(self, match: Contraction, point: Point) -> Point:
        """A tile no larger than the kernel; tasks of whole parts of it."""
        return _tiling.canonical(match.problem, point)

    def estimate(self, match: Contraction, point: Point) -> float:
        """The analytic model's cycles."""
        return _tiling.estimate(match.problem, self.canonical(match, point), match.target)
