"""Compute bfloat16 in float32, and store it as 16 bits."""

from dataclasses import dataclass

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.kernels import bfloat16_lowering


@dataclass(frozen=True)
class LowerBfloat16(Pass):
    """Compute bfloat16 in float32, and store it as 16 bits.

    A kernel rounds only what it stores, and what is cast to bfloat16 and back, to nearest even.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the loop nests that have bfloat16 in them."""
        return bfloat16_lowering.lower(module, context.target)
