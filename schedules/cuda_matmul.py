"""Matrix products and convolutions in float32 on CUDA cores."""

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
from hybridc.schedules import _cuda_gemm, _cuda_product, _cuda_tiles, _loops
from hybridc.schedules._cuda_compute import CudaCores
from hybridc.schedules._cuda_tiles import Cut

# Rows or columns below which a product is bound by memory, and a reduction does as well.
_LEAST = 8


@dataclass(frozen=True)
class CudaMatmul(ScheduleRule):
    """Products of float32 in full precision: tiles in shared memory, sums in registers."""

    priority: ClassVar[int] = 80
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> Cut | NotApplicable:
        """Take what comes down to a product of float32."""
        if not isinstance(found := _cuda_product.analyse(func, target), _cuda_product.Product):
            return found
        if found.dtype != "float32":
            return NotApplicable(f"it multiplies {found.dtype}, not float32")
        _, rows, columns, _ = found.sizes
        if min(rows, columns) < _LEAST:
            return NotApplicable(f"{rows} rows and {columns} columns leave most of a tile unused")
        return Cut(func, target, found, CudaCores(), target.device.fp32)

    def knobs(self, match: Cut) -> Space:
        """Sides of a block's tile and of a warp's; `stages` of copies."""
        return _cuda_tiles.space(match)

    def default(self, match: Cut, target: Target) -> Point:
        """The analytic model's choice."""
        return _cuda_tiles.default(match)

    def canonical(self, match: Cut, point: Point) -> Point:
        """What a block has threads, registers and shared memory for."""
        return _cuda_tiles.canonical(match, point)

    def estimate(self, match: Cut, point: Point) -> float:
        """The analytic model's cycles."""
        return _cuda_tiles.estimate(match, self.canonical(match, point))

    def schedule(self, match: Cut, point: Point) -> Schedule:
        """Written out thread by thread."""
        tiling = _cuda_tiles.tiling(self.canonical(match, point))
        return _loops.new_schedule(_cuda_gemm.kernel(match.product, tiling, match.compute))
