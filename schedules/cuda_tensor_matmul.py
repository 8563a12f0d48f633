"""Matrix products and convolutions on tensor cores: float16, bfloat16, TensorFloat-32, bytes."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, PrimFunc
from hybridc.compiler.kernels.kernel_cost import MULTIPLY
from hybridc.compiler.target import Target
from hybridc.schedules.cuda import product_kernel
from hybridc.schedules.cuda.compute import TensorCores
from hybridc.schedules.cuda.product_rule import CudaProducts, too_thin
from hybridc.schedules.cuda.tiles import Cut

_TF32 = "tf32"
_BYTES = {
    f"{left} by {right}" if left != right else left: f"{left}_{right}"
    for left in ("uint8", "int8")
    for right in ("uint8", "int8")
}
_NEEDS = {"bfloat16": "mma.bf16", _TF32: "mma.tf32", **dict.fromkeys(_BYTES.values(), "mma.int8")}
# From Hopper on, instructions of one warp reach about so much of the peak; the rest takes those of
# four warps together (wgmma), which are not generated yet.
_WARPGROUPS, _REACHED = 90, 0.62
_BYTES_FASTER = 2  # products of bytes in the time of one of 16 bits


@dataclass(frozen=True)
class CudaTensorMatmul(CudaProducts):
    """Products of 16-bit types, of float32 rounded to TF32, or of bytes, on tensor cores."""

    priority: ClassVar[int] = 90

    def match(self, func: PrimFunc, target: Target) -> Cut | NotApplicable:
        """Take what comes down to a product of types that the tensor cores multiply."""
        if not isinstance(found := product_kernel.analyse(func, target), product_kernel.Product):
            return found
        kind = _kind(found)
        if kind is None:
            return NotApplicable(f"tensor cores do not multiply {found.dtype}")
        if (feature := _NEEDS.get(kind)) and feature not in target.device.features:
            return NotApplicable(f"{target.device.arch} does not multiply {kind}")
        if thin := too_thin(found):
            return thin
        integers = kind in _BYTES.values()
        rate = target.device.tf32 if kind == _TF32 else target.device.half
        rate *= _BYTES_FASTER if integers else 1
        if target.device.capability >= _WARPGROUPS:
            rate *= _REACHED
        cores = TensorCores(total="int32" if integers else "float32", dtype=kind)
        return Cut(func, target, found, cores, rate)


def _kind(product: product_kernel.Product) -> str | None:
    """The type that tensor cores take for this product's."""
    if product.dtype in ("float16", "bfloat16"):
        return product.dtype
    if product.dtype in _BYTES:
        return _BYTES[product.dtype] if product.sums == "int32" else None
    rounded = str(product.func.attrs.get(MULTIPLY, "")) == _TF32
    return _TF32 if product.dtype == "float32" and rounded else None
