"""Matrix products and convolutions in float32 on CUDA cores."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.cuda import product_kernel
from hybridc.schedules.cuda.multiply_adds import MultiplyAdds
from hybridc.schedules.cuda.operands import CHUNK_BYTES, source
from hybridc.schedules.cuda.product_rule import CudaProducts, too_thin
from hybridc.schedules.cuda.tiles import Cut


@dataclass(frozen=True)
class CudaMatmul(CudaProducts):
    """Products of float32 in full precision: tiles in shared memory, sums in registers."""

    priority: ClassVar[int] = 80

    def match(self, func: PrimFunc, target: Target) -> Cut | NotApplicable:
        """Take what comes down to a product of float32."""
        if not isinstance(found := product_kernel.analyse(func, target), product_kernel.Product):
            return found
        if found.dtype != "float32":
            return NotApplicable(f"it multiplies {found.dtype}, not float32")
        if thin := too_thin(found):
            return thin
        sources = [source(side, found, MultiplyAdds.by_depth) for side in (found.left, found.right)]
        plain = all(each.piece == CHUNK_BYTES and each.condition is None for each in sources)
        plain = plain and all(each.how in ("depth", "own") for each in sources)
        left, right = (each.by_depth for each in sources)
        cores = MultiplyAdds("float32", left, right, plain)
        return Cut(func, target, found, cores, target.device.fp32)
