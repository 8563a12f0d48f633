"""Remove what no result depends on."""

from dataclasses import dataclass

from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import unless_same


@dataclass(frozen=True)
class EliminateDeadCode(Pass):
    """Remove bindings and functions that no result depends on."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """TVM's dead code elimination; parameters stay, since callers pass them by position."""
        return unless_same(module, relax.transform.DeadCodeElimination()(module))
