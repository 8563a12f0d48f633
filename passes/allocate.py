"""Pass each kernel the buffers that it writes."""

from dataclasses import dataclass

from tvm import relax
from tvm.ir.transform import Sequential

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import unless_same


@dataclass(frozen=True)
class Allocate(Pass):
    """Pass each kernel the buffers that it writes.

    `call_tir`, which returns a new result, becomes an allocation and a call that fills it.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Lower every `call_tir`."""
        with context.target.tvm:
            lowered = Sequential(
                [
                    relax.transform.ToNonDataflow(),
                    relax.transform.RemovePurityChecking(),
                    relax.transform.CallTIRRewrite(),
                ]
            )(module)
        return unless_same(module, lowered)
