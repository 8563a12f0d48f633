"""Reductions with what is elementwise before and behind them."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.rows import row_stages, uneven
from hybridc.schedules.rows.rule import RowRule


@dataclass(frozen=True)
class Reduction(RowRule):
    """Sums, means, maxima over some axes: vectors across the kept axis or along the reduced one."""

    priority: ClassVar[int] = 20

    def match(self, func: PrimFunc, target: Target) -> row_stages.Rows | NotApplicable:
        """Take kernels with one reduction whose output has only the axes that it keeps."""
        found = row_stages.analyse(func, target)
        if isinstance(found, NotApplicable):
            return found
        if len(found.kept) != found.output_axes:
            return NotApplicable("its output has the reduced axis again")
        return uneven.with_fewer_axes(found)

    def default(self, match: row_stages.Rows, target: Target) -> Point:
        """Accumulators enough to hide latencies also where no whole vectors divide the rows."""
        if match.along or match.axis % match.native == 0:
            return match.point
        return {**match.point, "width": uneven.width(match)}
