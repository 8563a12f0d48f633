"""Softmax over any axis."""

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
from hybridc.schedules import _figures, _loops, _row_loops, _rows, _softmax_form


@dataclass(frozen=True)
class Softmax(ScheduleRule):
    """Softmax and its like: a maximum and a sum over a row, then the row itself."""

    priority: ClassVar[int] = 30

    def match(self, func: PrimFunc, target: Target) -> _rows.Rows | NotApplicable:
        """Take kernels that reduce rows by a maximum and a sum and write the rows again."""
        kinds = _rows.reducers(func)
        if kinds != ("Max", "Add"):
            return NotApplicable("it does not reduce by a maximum and then by a sum")
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
        """Enough accumulators to hide the latency of maxima and additions."""
        return match.point

    def figures(self, match: _rows.Rows, point: Point) -> Mapping[str, float]:
        """Those of a kernel of row stages."""
        return _figures.rows(match, point)

    def schedule(self, match: _rows.Rows, point: Point) -> Schedule:
        """Row by row: maximum, exponentials, their sum, quotient, all in the L1 cache."""
        done = _row_loops.schedule_rows(match, point)
        if not _softmax_form.is_softmax(match.staged):
            return done
        return _loops.new_schedule(_softmax_form.forget_nan(done.mod["main"]))
