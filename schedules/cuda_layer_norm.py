"""Layer, RMS and instance normalisation on a GPU."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules import _cuda_rows, _rows
from hybridc.schedules._cuda_row_rule import CudaRows, whole_rows


@dataclass(frozen=True)
class CudaLayerNorm(CudaRows):
    """Normalisations: statistics of a row, then the row itself scaled by them."""

    priority: ClassVar[int] = 35

    def match(self, func: PrimFunc, target: Target) -> _cuda_rows.GpuRows | NotApplicable:
        """Take kernels that reduce rows by sums and write the rows again."""
        if set(_rows.reducers(func)) != {"Add"}:
            return NotApplicable("it does not reduce by sums alone")
        return whole_rows(func, target)
