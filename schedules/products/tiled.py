"""What the rules of register-tiled kernels share: the knobs of the tile, and the analytic model."""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.interfaces import Point, ScheduleRule, Space
from hybridc.compiler.target import Target
from hybridc.schedules.products import point_figures, tiling


@dataclass(frozen=True)
class Tiled(ScheduleRule, ABC):
    """A rule whose points are those of `tiling`; its matches are a `Contraction`."""

    def knobs(self, match: Any) -> Space:
        """Rows and vectors of the register tile; row tiles and panels of a task."""
        return tiling.space(match.problem, match.target)

    def default(self, match: Any, target: Target) -> Point:
        """The analytic model's choice."""
        return tiling.default(match.problem, target)

    def figures(self, match: Any, point: Point) -> Mapping[str, float]:
        """Those of a tiled kernel."""
        return point_figures.tiled(match.problem, self.canonical(match, point), match.target)

    def canonical(self, match: Any, point: Point) -> Point:
        """A tile no larger than the kernel; tasks of whole parts of it."""
        return tiling.canonical(match.problem, point)

    def estimate(self, match: Any, point: Point) -> float:
        """The analytic model's cycles."""
        return tiling.estimate(match.problem, self.canonical(match, point), match.target)
