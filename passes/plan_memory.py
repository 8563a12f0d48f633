"""Place intermediate tensors in shared storage."""

from dataclasses import dataclass

from tvm import relax
from tvm.ir.transform import Sequential

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.rewrite import unless_same


@dataclass(frozen=True)
class PlanMemory(Pass):
    """Place intermediate tensors in shared storage.

    Each kernel writes into storage given to it, and two tensors that are
    never alive together share one.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Lower `call_tir` to calls with explicit buffers, then plan these."""
        with context.target.tvm:
            planned = Sequential(
                [
                    relax.transform.ToNonDataflow(),
                    relax.transform.RemovePurityChecking(),
                    relax.transform.CallTIRRewrite(),
                    relax.transform.StaticPlanBlockMemory(),
                ]
            )(module)
        return unless_same(module, planned)
