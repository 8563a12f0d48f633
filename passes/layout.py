"""Change convolutions and pooling to channels last."""

from collections.abc import Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    bindings_of,
    operator,
    rewrite,
    unless_same,
    with_attributes,
)

# Channels last lets one vector hold neighbouring channels whatever their number, makes a 1x1
# convolution a plain matrix product, and is what layer norms and attention read anyway.
_LAYOUTS = {
    "relax.nn.conv2d": ["NHWC", "OHWI"],
    "relax.nn.conv2d_transpose": ["NHWC", "IHWO"],
}


@dataclass(frozen=True)
class Layout(Pass):
    """Change convolutions and pooling to channels last.

    Activations become NHWC and weights OHWI.  Operators between convolutions (activation, residual,
    pooling, concatenation, mean) follow; transposes remain only at the model's edges and around
    operators that have no layout.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite `main`; its inputs and outputs keep their layout."""
        converted = rewrite(module, _convertible)
        # Where nothing is to be turned, TVM fails on a rank that depends on the data.
        if any(f"relax.{operator(b.value)}" in _LAYOUTS for b in bindings_of(converted["main"])):
            converted = relax.transform.ConvertLayout(_LAYOUTS)(converted)
        return unless_same(module, relax.transform.CanonicalizeBindings()(converted))


def _convertible(value: Expr, graph: Graph) -> Expr | None:
    """Write otherwise what TVM's conversion would fail on, or read beyond its lists for."""
    match operator(value):
        case "permute_dims":
            return _from_the_front(value, "axes", value.attrs.axes)
        case "squeeze":
            return _from_the_front(value, "axis", value.attrs.axis)
        case "stack":
            return _concatenated(value, graph)
        case "clip":
            return _bounded(value)
        case "nn.leakyrelu":
            return _leaky(value)
        case _:
            return None


def _from_the_front(value: Expr, name: str, axes: Sequence[int] | None) -> Expr | None:
    """The same operator without negative axes."""
    if axes is None or min(axes, default=0) >= 0:
        return None
    positive = [int(axis) % value.args[0].ty.ndim for axis in axes]
    return with_attributes(value, value.args, **{name: positive})


def _bounded(value: Expr) -> Expr | None:
    """A clip of numbers as a maximum of a minimum; layouts pass through these."""
    data, dtype = value.args[0], str(value.ty.dtype)
    if "float" not in dtype:
        return None
    low, high = (relax.const(float(bound.value), dtype) for bound in value.args[1:])
    return relax.op.maximum(relax.op.minimum(data, high), low)


def _leaky(value: Expr) -> Expr | None:
    """A leaky rectifier as the larger of a number and its share, which has a layout too."""
    data, dtype, share = value.args[0], str(value.ty.dtype), float(value.attrs.alpha)
    if not 0 < share <= 1:  # 0 times infinity is no number
        return None
    return relax.op.maximum(data, relax.op.multiply(data, relax.const(share, dtype)))


def _concatenated(value: Expr, graph: Graph) -> Expr | None:
    """A stack as the concatenation that it is."""
    parts = graph.value(value.args[0])
    if not isinstance(parts, tvm.ir.Tuple) or value.attrs.axis is None:
        return None
    axis = int(value.attrs.axis) % value.ty.ndim
    return relax.op.concat([relax.op.expand_dims(part, axis) for part in parts.fields], axis)
