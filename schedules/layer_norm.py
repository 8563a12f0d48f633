"""Layer, RMS and instance normalisation."""

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
class LayerNorm(ScheduleRule):
    """Normalisations: statistics of a row, then the row itself scaled by them."""

    priority: ClassVar[int] = 35

    def match(self, func: PrimFunc, target: Target) -> _rows.Rows | NotApplicable:
        """Take kernels that reduce rows by sums and write the rows again."""
        if set(_rows.reducers(func)) != {"Add"}:
            return NotApplicable("it does not reduce by sums alone")
        found = _rows.analyse(func, target)
        if isinstance(found, NotApplicable):
            return found
        if len(found.kept) == found.output_axes:
            return NotApplicable("its output lacks the reduced axis")
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
        """Row by row: mean, variance, scaled row, and what is elementwise behind it."""
        return _row_loops.schedule_rows(match, point)
