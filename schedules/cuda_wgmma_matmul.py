"""Matrix products and convolutions of 16-bit types on Hopper's tensor cores."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.cuda import product_kernel
from hybridc.schedules.cuda.product_rule import CudaProducts
from hybridc.schedules.cuda.tiles import Cut
from hybridc.schedules.cuda.warpgroups import WarpGroups

_TYPES = ("float16", "bfloat16")
# Rows below which most of a product of 64 rows is of nothing.
_LEAST_ROWS, _LEAST_COLUMNS = 48, 48


@dataclass(frozen=True)
class CudaWgmmaMatmul(CudaProducts):
    """Products of 16-bit types: tiles in shared memory, multiplied by four warps together."""

    priority: ClassVar[int] = 92

    def match(self, func: PrimFunc, target: Target) -> Cut | NotApplicable:
        """Take what comes down to a product of 16-bit types, large enough, on sm_90a."""
        if not isinstance(found := product_kernel.analyse(func, target), product_kernel.Product):
            return found
        if "wgmma" not in target.device.features:
            return NotApplicable(f"{target.device.arch} has no wgmma")
        if found.dtype not in _TYPES:
            return NotApplicable(f"it multiplies {found.dtype}, not 16-bit types")
        _, rows, columns, _ = found.sizes
        if rows < _LEAST_ROWS or columns < _LEAST_COLUMNS:
            return NotApplicable(f"{rows} rows and {columns} columns leave most of a tile unused")
        return Cut(func, target, found, WarpGroups(dtype=found.dtype), target.device.half)
