"""Softmax over any axis, on a GPU."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.cuda import rows
from hybridc.schedules.cuda.row_rule import CudaRows, whole_rows
from hybridc.schedules.rows import row_stages


@dataclass(frozen=True)
class CudaSoftmax(CudaRows):
    """Softmax and its like: a maximum and a sum over a row, then the row itself."""

    priority: ClassVar[int] = 30

    def match(self, func: PrimFunc, target: Target) -> rows.GpuRows | NotApplicable:
        """Take kernels that reduce rows by a maximum and a sum and write the rows again."""
        if row_stages.reducers(func) != ("Max", "Add"):
            return NotApplicable("it does not reduce by a maximum and then by a sum")
        return whole_rows(func, target)
