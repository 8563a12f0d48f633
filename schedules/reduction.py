"""Reductions with what is elementwise before and behind them."""

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
from hybridc.schedules import _figures, _row_loops, _rows


@dataclass(frozen=True)
class Reduction(ScheduleRule):
    """Sums, means, maxima over some axes: vectors across the kept axis or along the reduced one."""

    priority: ClassVar[int] = 20

    def match(self, func: PrimFunc, target: Target) -> _rows.Rows | NotApplicable:
        """Take kernels with one reduction whose output has only the axes that it keeps."""
        found = _rows.analyse(func, target)
        if isinstance(found, NotApplicable):
            return found
        if len(found.kept) != found.output_axes:
            return NotApplicable("its output has the reduced axis again")
        return found

    def knobs(self, match: _rows.Rows) -> Space:
        """`width`: lanes along the reduced axis, or rows side by side; `threads` or one thread."""
        return match.space

    def default(self, match: _rows.Rows, target: Target) -> Point:
        """Enough accumulators to hide the latency of additions."""
        return match.point

    def figures(self, match: _rows.Rows, point: Point) -> Mapping[str, float]:
        """Those of a kernel of row stages."""
        return _figures.rows(match, point)

    def schedule(self, match: _rows.Rows, point: Point) -> Schedule:
        """Row by row, accumulators in registers, the epilogue behind each row."""
        return _row_loops.schedule_rows(match, point)
