"""Softmax over any axis."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules import _loops, _rows, _softmax_form
from hybridc.schedules._row_rule import RowRule, whole_rows


@dataclass(frozen=True)
class Softmax(RowRule):
    """Softmax and its like: a maximum and a sum over a row, then the row itself."""

    priority: ClassVar[int] = 30

    def match(self, func: PrimFunc, target: Target) -> _rows.Rows | NotApplicable:
        """Take kernels that reduce rows by a maximum and a sum and write the rows again."""
        if _rows.reducers(func) != ("Max", "Add"):
            return NotApplicable("it does not reduce by a maximum and then by a sum")
        return whole_rows(func, target)

    def schedule(self, match: _rows.Rows, point: Point) -> Schedule:
        """Row by row: maximum, exponentials, their sum, quotient, all in the L1 cache."""
        done = super().schedule(match, point)
        if not _softmax_form.is_softmax(match.staged):
            return done
        return _loops.new_schedule(_softmax_form.forget_nan(done.mod["main"]))
