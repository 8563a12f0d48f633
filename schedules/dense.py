"""Matrix products with packed weights, and 1x1 convolutions, which are the same."""

from dataclasses import dataclass
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
from hybridc.schedules import _contraction, _dot_products, _tiling
from hybridc.schedules._contraction import Contraction


@dataclass(frozen=True)
class Dense(ScheduleRule):
    """Schedule `x[..., k] * w[n, k]` with packed weights: register tiles, tasks over threads."""

    priority: ClassVar[int] = 80

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `pack-weights` made from a matrix product or a 1x1 convolution."""
        found = _contraction.find_product(func, "dense")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        rows, _, _ = _contraction.extents(schedule, product)
        store = schedule.get_consumers(product)[0]
        columns = _contraction.extents(schedule, store)[-1]
        depth = _contraction.steps(schedule, product)
        size = depth * 4
        problem = _tiling.Problem(1, 1, rows, columns, depth, size, rows * size, target.lanes())
        return Contraction(func, target, problem)

    def knobs(self, match: Contraction) -> Space:
        """Rows and vectors of the register tile; row tiles and panels of a task."""
        return _tiling.space(match.problem, match.target)

    def default(self, match: Contraction, target: Target) -> Point:
        """The analytic model's choice."""
        return _tiling.default(match.problem, target)

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile; weights and rows are read as they lie, but for a depth that is no whole groups."""
        schedule = _contraction.new_schedule(match.func)
        product = _contraction.product_of(schedule)
        store = _contraction.inline_epilogue(schedule, product)
        feeding = schedule.get_producers(product)
        _contraction.tile(match, schedule, product, store, point)
        for pad in feeding:
            _contraction.spread(schedule, pad)
        return _dot_products.implement(schedule)
