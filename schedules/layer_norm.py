"""Layer, RMS and instance normalisation."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.rows import row_stages
from hybridc.schedules.rows.rule import RowRule, whole_rows


@dataclass(frozen=True)
class LayerNorm(RowRule):
    """Normalisations: statistics of a row, then the row itself scaled by them."""

    priority: ClassVar[int] = 35

    def match(self, func: PrimFunc, target: Target) -> row_stages.Rows | NotApplicable:
        """Take kernels that reduce rows by sums and write the rows again."""
        if set(row_stages.reducers(func)) != {"Add"}:
            return NotApplicable("it does not reduce by sums alone")
        return whole_rows(func, target)
