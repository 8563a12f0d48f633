"""Reductions on a GPU, with what is elementwise before and behind them."""

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
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules import _cuda_rows


@dataclass(frozen=True)
class CudaReduction(ScheduleRule):
    """Sums, means, maxima over some axes: threads along the reduced axis, or over the kept one."""

    priority: ClassVar[int] = 20
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> _cuda_rows.GpuRows | NotApplicable:
        """Take kernels with one reduction whose output has only the axes that it keeps."""
        found = _cuda_rows.analyse(func, target)
        if isinstance(found, NotApplicable):
            return found
        if len(found.rows.kept) != found.rows.output_axes:
            return NotApplicable("its output has the reduced axis again")
        return found

    def knobs(self, match: _cuda_rows.GpuRows) -> Space:
        """`threads` of a row, `rows` of a block, stages to `keep` in shared memory."""
        return _cuda_rows.space(match)

    def default(self, match: _cuda_rows.GpuRows, target: Target) -> Point:
        """Some elements for each thread; short rows share a block."""
        return _cuda_rows.default(match)

    def canonical(self, match: _cuda_rows.GpuRows, point: Point) -> Point:
        """What a block has threads and memory for."""
        return _cuda_rows.canonical(match, point)

    def schedule(self, match: _cuda_rows.GpuRows, point: Point) -> Schedule:
        """Row by row, the epilogue behind each row."""
        return _cuda_rows.schedule(match, point)
