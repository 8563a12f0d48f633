"""Turn convolutions and pooling to channels last, and cancel the transposes between them."""

from dataclasses import dataclass

from tvm import relax
from tvm.ir.transform import Sequential

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.rewrite import Expr, Graph, operator, rewrite, shape, unless_same

# Channels last lets one vector hold neighbouring channels whatever their number, makes a 1x1
# convolution a plain matrix product, and is what layer norms and attention read anyway.
_LAYOUTS = {"relax.nn.conv2d": ["NHWC", "OHWI"]}


@dataclass(frozen=True)
class Layout(Pass):
    """Turn convolutions and pooling to channels last, and cancel the transposes between them.

    Activations become NHWC and weights OHWI.  What stands between two convolutions (activation,
    residual, pooling, concatenation, mean) follows; transposes remain only at the model's edges
    and around operators that know no layout.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite `main`; its inputs and outputs keep their layout."""
        converted = Sequential(
            [
                relax.transform.ConvertLayout(_LAYOUTS),
                relax.transform.CanonicalizeBindings(),
            ]
        )(module)
        return unless_same(module, rewrite(converted, _cancel))


def _cancel(value: Expr, graph: Graph) -> Expr | None:
    """Merge a transpose of a transpose into one, and drop one that moves nothing."""
    if operator(value) != "permute_dims":
        return None
    source, axes = value.args[0], _axes(value)
    inner = graph.call(source, "permute_dims")
    if inner is not None:
        source, axes = inner.args[0], [_axes(inner)[axis] for axis in axes]
    if axes == sorted(axes):
        return source
    return None if inner is None else relax.op.permute_dims(source, axes)


def _axes(call: Expr) -> list[int]:
    rank = len(shape(call.args[0]))
    if call.attrs.axes is None:
        return list(range(rank))[::-1]
    return [int(axis) % rank for axis in call.attrs.axes]
