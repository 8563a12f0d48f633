"""Reductions on a GPU, with what is elementwise before and behind them."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.cuda import launch_loops, rows
from hybridc.schedules.cuda.row_rule import CudaRows
from hybridc.schedules.loops import analysis


@dataclass(frozen=True)
class CudaReduction(CudaRows):
    """Sums, means, maxima over some axes: threads along the reduced axis, or over the kept one."""

    priority: ClassVar[int] = 20

    def match(self, func: PrimFunc, target: Target) -> rows.GpuRows | NotApplicable:
        """Take kernels with one reduction whose output has only the axes that it keeps."""
        found = rows.analyse(func, target)
        if isinstance(found, NotApplicable):
            return found
        if any(launch_loops.slides(block) for block in analysis.blocks(found.rows.staged)):
            return NotApplicable("it reduces windows, which overlap")
        if len(found.rows.kept) != found.rows.output_axes:
            return NotApplicable("its output has the reduced axis again")
        return found
