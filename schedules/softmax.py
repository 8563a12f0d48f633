"""Softmax over any axis."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules.loops import transforms
from hybridc.schedules.rows import row_stages, softmax_form
from hybridc.schedules.rows.rule import RowRule, whole_rows

# Registers of AVX2.
_FEW = 16
# Times around the loop over a row from which accumulators in flight outweigh the tree behind them.
_LONG = 14


@dataclass(frozen=True)
class Softmax(RowRule):
    """Softmax and its like: a maximum and a sum over a row, then the row itself."""

    priority: ClassVar[int] = 30

    def match(self, func: PrimFunc, target: Target) -> row_stages.Rows | NotApplicable:
        """Take kernels that reduce rows by a maximum and a sum and write the rows again."""
        if row_stages.reducers(func) != ("Max", "Add"):
            return NotApplicable("it does not reduce by a maximum and then by a sum")
        return whole_rows(func, target)

    def default(self, match: row_stages.Rows, target: Target) -> Point:
        """As for other rows where they are long; else, or with few registers, a vector at a time.

        The trees behind two reductions cost more than they save: 1536 rows of 128 take 34 µs by 16
        lanes and 68 by 64, 512 of 768 85 and 87, 256 of 1000 57 and 53 (Zen 4, AVX-512).  Where the
        constants of exp leave no registers, 2364 of 197 take 122 by 8 lanes and 149 by 32 (Zen 3).
        """
        wide = match.point["width"]
        long = target.vector_registers > _FEW and match.axis >= _LONG * wide
        if not match.along or long:
            return match.point
        return {**match.point, "width": max(w for w in match.widths if w <= match.native)}

    def schedule(self, match: row_stages.Rows, point: Point) -> Schedule:
        """Row by row: maximum, exponentials, their sum, quotient, all in the L1 cache."""
        done = super().schedule(match, point)
        if not softmax_form.is_softmax(match.staged):
            return done
        return transforms.new_schedule(softmax_form.forget_nan(done.mod["main"]))
