"""Layer, RMS and instance normalisation on a GPU."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.cuda import rows
from hybridc.schedules.cuda.row_rule import CudaRows, whole_rows
from hybridc.schedules.rows import row_stages


@dataclass(frozen=True)
class CudaLayerNorm(CudaRows):
    """Normalisations: statistics of a row, then the row itself scaled by them."""

    priority: ClassVar[int] = 35

    def match(self, func: PrimFunc, target: Target) -> rows.GpuRows | NotApplicable:
        """Take kernels that reduce rows by sums and write the rows again."""
        if set(row_stages.reducers(func)) != {"Add"}:
            return NotApplicable("it does not reduce by sums alone")
        return whole_rows(func, target)
