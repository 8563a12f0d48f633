"""Matrix products with packed weights, and 1x1 convolutions, which are the same."""

from collections.abc import Mapping
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
from hybridc.schedules import _dense, _figures, _tiling
from hybridc.schedules._contraction import Contraction


@dataclass(frozen=True)
class Dense(ScheduleRule):
    """Schedule `x[..., k] * w[n, k]` with packed weights: register tiles, tasks over threads."""

    priority: ClassVar[int] = 80

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `pack-weights` made from a matrix product or a 1x1 convolution."""
        return _dense.match(func, target)

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
        """Tile as every product with packed weights is tiled."""
        return _dense.schedule(match, point)

    def canonical(self, match: Contraction, point: Point) -> Point:
        """A tile no larger than the kernel; tasks of whole parts of it."""
        return _tiling.canonical(match.problem, point)

    def estimate(self, match: Contraction, point: Point) -> float:
        """The analytic model's cycles."""
        return _tiling.estimate(match.problem, self.canonical(match, point), match.target)
