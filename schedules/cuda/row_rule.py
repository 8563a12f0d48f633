"""What the rules of kernels that reduce rows on a GPU share: all but the kernels that they take."""

from abc import ABC
from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules.cuda import rows


@dataclass(frozen=True)
class CudaRows(ScheduleRule, ABC):
    """A rule whose points are those of `rows`; its matches are a `GpuRows`."""

    device: ClassVar[str] = CUDA

    def knobs(self, match: Any) -> Space:
        """`threads` of a row, `rows` of a block, stages to `keep` in shared memory."""
        return rows.space(match)

    def default(self, match: Any, target: Target) -> Point:
        """Some elements for each thread; short rows share a block."""
        return rows.default(match)

    def canonical(self, match: Any, point: Point) -> Point:
        """What a block has threads and memory for."""
        return rows.canonical(match, point)

    def schedule(self, match: Any, point: Point) -> Schedule:
        """Row by row: its reductions, then what is elementwise behind them."""
        return rows.schedule(match, point)


def whole_rows(func: PrimFunc, target: Target) -> rows.GpuRows | NotApplicable:
    """Take a kernel that writes the rows again which it reduces."""
    found = rows.analyse(func, target)
    if isinstance(found, NotApplicable):
        return found
    if len(found.rows.kept) == found.rows.output_axes:
        return NotApplicable("its output lacks the reduced axis")
    return found
