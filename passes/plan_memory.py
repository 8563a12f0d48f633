"""Place intermediate tensors in shared storage."""

from dataclasses import dataclass

from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import unless_same


@dataclass(frozen=True)
class PlanMemory(Pass):
    """Place intermediate tensors in shared storage.

    Two tensors that are never alive at the same time share one.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Plan the buffers that kernels were given."""
        with context.target.tvm:
            planned = relax.transform.StaticPlanBlockMemory()(module)
        return unless_same(module, planned)
