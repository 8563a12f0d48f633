"""Layer, RMS and instance normalisation on a GPU."""

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
from hybridc.schedules import _cuda_rows, _rows


@dataclass(frozen=True)
class CudaLayerNorm(ScheduleRule):
    """Normalisations: statistics of a row, then the row itself scaled by them."""

    priority: ClassVar[int] = 35
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> _cuda_rows.GpuRows | NotApplicable:
        """Take kernels that reduce rows by sums and write the rows again."""
        if set(_rows.reducers(func)) != {"Add"}:
            return NotApplicable("it does not reduce by sums alone")
        found = _cuda_rows.analyse(func, target)
        if isinstance(found, NotApplicable):
            return found
        if len(found.rows.kept) == found.rows.output_axes:
            return NotApplicable("its output lacks the reduced axis")
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
        """Row by row: mean, variance, scaled row, and what is elementwise behind it."""
        return _cuda_rows.schedule(match, point)
