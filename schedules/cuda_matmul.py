"""Matrix products and convolutions in float32 on CUDA cores."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules import _cuda_product
from hybridc.schedules._cuda_compute import CudaCores
from hybridc.schedules._cuda_product_rule import CudaProducts, too_thin
from hybridc.schedules._cuda_tiles import Cut


@dataclass(frozen=True)
class CudaMatmul(CudaProducts):
    """Products of float32 in full precision: tiles in shared memory, sums in registers."""

    priority: ClassVar[int] = 80

    def match(self, func: PrimFunc, target: Target) -> Cut | NotApplicable:
        """Take what comes down to a product of float32."""
        if not isinstance(found := _cuda_product.analyse(func, target), _cuda_product.Product):
            return found
        if found.dtype != "float32":
            return NotApplicable(f"it multiplies {found.dtype}, not float32")
        if thin := too_thin(found):
            return thin
        return Cut(func, target, found, CudaCores(), target.device.fp32)
