"""Turn convolutions and pooling to channels last."""

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import relax
from tvm.ir.transform import Sequential

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.rewrite import Expr, Graph, operator, rewrite, unless_same, with_attributes

# Channels last lets one vector hold neighbouring channels whatever their number, makes a 1x1
# convolution a plain matrix product, and is what layer norms and attention read anyway.
_LAYOUTS = {
    "relax.nn.conv2d": ["NHWC", "OHWI"],
    # TVM has loop nests for this layout alone.
    "relax.nn.conv2d_transpose": ["NCHW", "IOHW"],
}


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
        )(rewrite(module, _count_from_the_front))
        return unless_same(module, converted)


def _count_from_the_front(value: Expr, graph: Graph) -> Expr | None:
    """Negative axes that TVM's conversion would take for huge ones, and read beyond its lists."""
    operands, attrs = value.args, getattr(value, "attrs", None)
    match operator(value):
        case "permute_dims" if attrs.axes is not None and min(attrs.axes) < 0:
            return with_attributes(value, operands, axes=_positive(attrs.axes, value))
        case "squeeze" if attrs.axis is not None and min(attrs.axis) < 0:
            return with_attributes(value, operands, axis=_positive(attrs.axis, operands[0]))
        case "stack" if attrs.axis is not None and attrs.axis < 0:
            return with_attributes(value, operands, axis=int(attrs.axis) + value.ty.ndim)
        case _:
            return None


def _positive(axes: Sequence[int], tensor: Expr) -> list[int]:
    return [int(axis) % tensor.ty.ndim for axis in axes]
