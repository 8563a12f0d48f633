"""Matrix products and convolutions on tensor cores: float16, bfloat16, TensorFloat-32."""

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
from hybridc.compiler.kernels.kernel_cost import MULTIPLY
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules import _cuda_gemm, _cuda_product, _cuda_tiles, _loops
from hybridc.schedules._cuda_compute import TensorCores
from hybridc.schedules._cuda_tiles import Cut

# Rows or columns below which a product is bound by memory, and a reduction does as well.
_LEAST = 8
_NEEDS = {"bfloat16": "mma.bf16", "tf32": "mma.tf32"}
_TF32 = "tf32"
# From Hopper on, instructions of one warp reach about so much of the peak; the rest takes those of
# four warps together (wgmma), which are not generated yet.
_WARPGROUPS, _REACHED = 90, 0.62


@dataclass(frozen=True)
class CudaTensorMatmul(ScheduleRule):
    """Products of 16-bit types, or of float32 rounded to TF32, on tensor cores."""

    priority: ClassVar[int] = 90
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> Cut | NotApplicable:
        """Take what comes down to a product of types that the tensor cores multiply."""
        if not isinstance(found := _cuda_product.analyse(func, target), _cuda_product.Product):
            return found
        kind = _kind(found)
        if kind is None:
            return NotApplicable(f"tensor cores do not multiply {found.dtype}")
        if (feature := _NEEDS.get(kind)) and feature not in target.device.features:
            return NotApplicable(f"{target.device.arch} does not multiply {kind}")
        _, rows, columns, _ = found.sizes
        if min(rows, columns) < _LEAST:
            return NotApplicable(f"{rows} rows and {columns} columns leave most of a tile unused")
        rate = target.device.tf32 if kind == _TF32 else target.device.half
        if target.device.capability >= _WARPGROUPS:
            rate *= _REACHED
        return Cut(func, target, found, TensorCores(kind), rate)

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


def _kind(product: _cuda_product.Product) -> str | None:
    """The type that tensor cores take for this product's."""
    if product.dtype in ("float16", "bfloat16"):
        return product.dtype
    rounded = str(product.func.attrs.get(MULTIPLY, "")) == _TF32
    return _TF32 if product.dtype == "float32" and rounded else None
