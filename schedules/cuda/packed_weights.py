"""Weights of 8 or 4 bits, which threads of a GPU unpack in registers.

The 16 bytes that a thread reads are words of four columns that lie side by side: of 8 bits four
steps of the depth of each, of 4 bits eight.  A group of the depth has whole such pieces, so that a
piece has one scale for each column.
"""

from dataclasses import dataclass
from typing import Any

from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_walk

from hybridc.compiler.kernels.products.weight_only import GPU_WIDTH, KIND
from hybridc.compiler.kernels.tensor_expressions import kinds_in
from hybridc.schedules.cuda.product_kernel import Operand, Product

_PIECE = 16  # integers of 8 bits in 16 bytes
# Registers of a piece: 16 bytes of integers, and 8 of scales.
_INTEGERS, _SCALES = 4, 2


@dataclass(frozen=True)
class Weights:
    """The integers of `bits` and the scales that a place of an operand is the product of."""

    integers: Any
    scales: Any
    bits: int

    @property
    def groups(self) -> int:
        """Groups of the depth, each with scales of its own."""
        return int(self.scales.source.shape[1])

    @property
    def wide(self) -> int:
        """Columns of a piece."""
        return GPU_WIDTH

    @property
    def deep(self) -> int:
        """Steps of the depth of a piece."""
        return _PIECE * 8 // self.bits // self.wide

    @property
    def held(self) -> int:
        """Registers of a piece as it lies in memory."""
        return _INTEGERS + _SCALES


def weights(product: Product, side: Operand) -> Weights | None:
    """What `quantize-weights` made of a side; None where that is anything else."""
    if KIND not in kinds_in(product.func):
        return None
    loads: list[Any] = []
    structural_walk(side.value, (TensorLoad, loads.append))
    by_type = {str(load.source.dtype): load for load in loads}
    scales = by_type.pop("bfloat16", None)
    if scales is None or len(loads) != len((scales, *by_type)) or len(by_type) != 1:
        return None
    ((dtype, integers),) = by_type.items()
    bits = {"int8": 8, "int32": 4}.get(dtype)
    if bits is None or int(integers.source.shape[-1]) != GPU_WIDTH:
        return None
    made = Weights(integers, scales, bits)
    whole = product.sizes[3] % (made.groups * made.deep) == 0
    return made if whole and len(side.own) == len(product.depth) == 1 else None
