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
from hybridc.schedules import _figures, _row_loops, _rows


@dataclass(frozen=True)
class RowRule(ScheduleRule, ABC):
    """A rule whose points are those of `_rows`; its matches are `Rows`."""

    def knobs(self, match: _rows.Rows) -> Space:
        """`width`: lanes along the reduced axis, or rows side by side; `threads` or one thread."""
        return match.space

    def default(self, match: _rows.Rows, target: Target) -> Point:
        """Enough accumulators to hide the latency of additions and maxima."""
        return match.point

    def figures(self, match: _rows.Rows, point: Point) -> Mapping[str, float]:
        """Those of a kernel of row stages."""
        return _figures.rows(match, point)

    def schedule(self, match: _rows.Rows, point: Point) -> Schedule:
        """Row by row: its reductions, then what is elementwise behind them, in the L1 cache."""
        return _row_loops.schedule_rows(match, point)


def whole_rows(func: PrimFunc, target: Target) -> _rows.Rows | NotApplicable:
    """Take a kernel that writes the rows again which it reduces."""
    found = _rows.analyse(func, target)
    if isinstance(found, NotApplicable):
        return found
    if len(found.kept) == found.output_axes:
        return NotApplicable("its output lacks the reduced axis")
    return found
