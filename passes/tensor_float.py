"""Let tensor cores multiply float32, rounded to TensorFloat-32."""

from collections import Counter
from dataclasses import dataclass

from tvm import tirx

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.ir.rewrite import updated
from hybridc.compiler.kernels.attention.attention_form import holds_attention
from hybridc.compiler.kernels.kernel_cost import MULTIPLY, factors
from hybridc.compiler.kernels.products import weight_only
from hybridc.compiler.kernels.tensor_expressions import kinds_in

_TF32 = "tf32"


@dataclass(frozen=True)
class TensorFloat(Pass):
    """Let tensor cores multiply float32, rounded to TensorFloat-32.

    Marks the kernels whose operands may be rounded to a mantissa of ten bits, with the range of
    float32; sums stay in float32.  With `attention`, only kernels of attention are marked.
    """

    attention: bool = False

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Mark every kernel of float32 products."""
        marked = {
            var: func.with_attr(MULTIPLY, _TF32)
            for var, func in module.functions_items()
            if isinstance(func, tirx.PrimFunc) and self._takes(func)
        }
        # Packed weights were counted by the pass that packed them.
        fresh = [var for var, func in marked.items() if weight_only.KIND not in kinds_in(func)]
        context.lowered |= Counter(var.name_hint for var in fresh)
        return updated(module, marked) if marked else module

    def _takes(self, func: PrimFunc) -> bool:
        return factors(func) == {"float32"} and (not self.attention or holds_attention(func))
