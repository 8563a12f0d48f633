"""Join each kernel with the elementwise operators around it."""

from dataclasses import dataclass

from tvm import relax
from tvm.ir.transform import Sequential

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.rewrite import unless_same


@dataclass(frozen=True)
class Fuse(Pass):
    """Join each kernel with the elementwise operators around it.

    Bias, activation and residual become the epilogue of the convolution or product that feeds
    them, and chains of elementwise operators one loop nest: each avoided kernel saves a write
    and a read of a whole tensor.  Reshapes that joined no kernel become views.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Group by TVM's operator patterns, then merge each group's loop nests."""
        fused = Sequential(
            [
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FuseOps(),
                relax.transform.FuseTIR(),
                # Now, while a reshape's loop nest can still be told from any other copy.
                relax.transform.RewriteDataflowReshape(),
                relax.transform.DeadCodeElimination(),
            ]
        )(module)
        return unless_same(module, fused)
