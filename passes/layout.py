"""Turn convolutions and pooling to channels last."""

from dataclasses import dataclass

from tvm import relax
from tvm.ir.transform import Sequential

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.rewrite import unless_same

# Channels last lets one vector hold neighbouring channels whatever their number, makes a 1x1
# convolution a plain matrix product, and is what layer norms and attention read anyway.
_LAYOUTS = {"relax.nn.conv2d": ["NHWC", "OHWI"]}


@dataclass(frozen=True)
class Layout(Pass):
    """Turn convolutions and pooling to channels last.

    Activations become NHWC and weights OHWI.  What stands between two convolutions (activation,
    residual, pooling, concatenation, mean) follows; transposes remain only at the model's edges
    and around operators that know no layout.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite `main`; its inputs and outputs keep their layout."""
        converted = Sequential(
            [relax.transform.ConvertLayout(_LAYOUTS), relax.transform.CanonicalizeBindings()]
        )(module)
        return unless_same(module, converted)
