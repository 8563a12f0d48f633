"""What the rules of kernels that reduce rows on a CPU share: all but the kernels that they take."""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass

from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import Target
from hybridc.schedules.products import point_figures
from hybridc.schedules.rows import row_loops, row_stages


@dataclass(frozen=True)
class RowRule(ScheduleRule, ABC):
    """A rule whose points are those of `row_stages`; its matches are `Rows`."""

    def knobs(self, match: row_stages.Rows) -> Space:
        """`width`: lanes along the reduced axis, or rows side by side; `threads` or one thread."""
        return match.space

    def default(self, match: row_stages.Rows, target: Target) -> Point:
        """Enough accumulators to hide the latency of additions and maxima."""
        return match.point

    def figures(self, match: row_stages.Rows, point: Point) -> Mapping[str, float]:
        """Those of a kernel of row stages."""
        return point_figures.rows(match, point)

    def schedule(self, match: row_stages.Rows, point: Point) -> Schedule:
        """Row by row: its reductions, then what is elementwise behind them, in the L1 cache."""
        return row_loops.schedule_rows(match, point)


def whole_rows(func: PrimFunc, target: Target) -> row_stages.Rows | NotApplicable:
    """Take a kernel that writes the rows again which it reduces."""
    found = row_stages.analyse(func, target)
    if isinstance(found, NotApplicable):
        return found
    if len(found.kept) == found.output_axes:
        return NotApplicable("its output lacks the reduced axis")
    return found
