"""Fold batch norms, and scales and shifts per channel, into the weights before them.

In inference a batch norm is `scale * x + shift` with one number per channel (Ioffe and Szegedy,
https://arxiv.org/abs/1502.03167, section 3.1).  Convolution and matrix product are linear, so a
scale moves into their weights; shifts are collected in one addition after them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import ml_dtypes
import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Expr, Graph, Rule, constant, operator, rewrite, shape
from hybridc.compiler.model import Array

Wide = NDArray[np.float64]

# Bits of a number's fraction behind its point, below which adding the number is meant to round.
_SPARE_BITS = 3
# What is left of such a shift where the next one takes it away.
_LEFT = 2.0**-10

_CONVOLUTIONS = ("nn.conv1d", "nn.conv2d", "nn.conv3d")


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Move batch norms and constant scales into the weights of the operator before them.

    Computed in float64 and rounded once to the dtype of the weights.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Batch norms become scale and shift; scales then sink into weights."""
        return rewrite(module, _fold)


def _fold(value: Expr, graph: Graph) -> Expr | None:
    if isinstance(value, tvm.ir.TupleGetItem):
        return _batch_norm(value, graph)
    rule = _RULES.get(operator(value))
    if rule is None or "float" not in str(value.ty.dtype):
        return None
    return rule(value, graph)


def _batch_norm(value: Expr, graph: Graph) -> Expr | None:
    """Write a batch norm with constant statistics as `x * scale + shift`."""
    norm = graph.call(value.tuple_value, "nn.batch_norm")
    if norm is None or norm.attrs.training or value.index != 0:
        return None
    statistics = [graph.constant(operand) for operand in norm.args[1:5]]
    known = [array.astype(np.float64) for array in statistics if array is not None]
    if len(known) < len(statistics):
        return None
    gamma, beta, mean, variance = known
    scale = (gamma if norm.attrs.scale else 1.0) / np.sqrt(variance + norm.attrs.epsilon)
    shift = (beta if norm.attrs.center else 0.0) - mean * scale
    rank = len(shape(norm.args[0]))
    axis = int(norm.attrs.axis) % rank
    dtype = str(norm.args[0].ty.dtype)
    scaled = relax.op.multiply(norm.args[0], _along(scale, axis, rank, dtype))
    return relax.op.add(scaled, _along(shift, axis, rank, dtype))


def _along(numbers: Wide, axis: int, rank: int, dtype: str) -> Expr:
    """A vector as a constant that broadcasts along one axis of a tensor."""
    extents = [1] * rank
    extents[axis] = numbers.size
    return constant(numbers.reshape(extents), dtype)


def _multiply(value: Expr, graph: Graph) -> Expr | None:
    """`(x @ w) * s` is `x @ (w * s)`; `(x @ w + b) * s` is `x @ (w * s) + b * s`."""
    operand, scale = _with_constant(value, graph)
    return None if scale is None else _scaled(operand, scale, value, graph)


def _divide(value: Expr, graph: Graph) -> Expr | None:
    divisor = graph.constant(value.args[1])
    if divisor is None or not divisor.all():
        return None
    return _scaled(value.args[0], 1 / divisor.astype(np.float64), value, graph)


def _scaled(operand: Expr, scale: Wide, value: Expr, graph: Graph) -> Expr | None:
    """`operand * scale` with the scale nearer to the weights, or None."""
    if not graph.only_use(operand) or shape(operand) != shape(value):
        return None
    sum_ = graph.call(operand, "add")
    if sum_ is None:
        return _with_scaled_weight(operand, scale, graph)
    inner, shift = _with_constant(sum_, graph)
    if shift is None or not graph.only_use(inner) or shape(inner) != shape(value):
        return None
    scaled_shift = shift * scale
    product = _with_scaled_weight(inner, scale, graph)
    if product is None or scaled_shift.size > max(shift.size, scale.size):
        return None
    return relax.op.add(product, constant(scaled_shift, str(value.ty.dtype)))


def _with_scaled_weight(operand: Expr, scale: Wide, graph: Graph) -> Expr | None:
    """The convolution or matrix product that computes `operand`, its weights scaled."""
    call = graph.call(operand, *_CONVOLUTIONS, "matmul")
    weight = None if call is None else graph.constant(call.args[1])
    if call is None or weight is None or str(weight.dtype) != str(call.ty.dtype):
        return None
    axes = _output_axes(call, weight)
    if axes is None:
        return None
    per_channel = _per_channel(scale, axes[0], len(shape(operand)))
    if per_channel is None:
        return None
    extents = [1] * weight.ndim
    extents[axes[1]] = per_channel.size
    scaled = constant(weight.astype(np.float64) * per_channel.reshape(extents), str(weight.dtype))
    return tvm.ir.Call(call.op, [call.args[0], scaled], call.attrs, call.ty_args)


def _output_axes(call: Expr, weight: Array) -> tuple[int, int] | None:
    """Where the output channels lie in the result and in the weight, or None if blocked."""
    if operator(call) == "matmul":
        # A batch of weights or a vector would need its own axis arithmetic; models have neither.
        return (len(call.ty.shape.values) - 1, 1) if weight.ndim == 2 else None
    layout = call.attrs.out_layout or call.attrs.data_layout
    kernel = call.attrs.kernel_layout
    if not (layout.isupper() and kernel.isupper()):
        return None
    return layout.index("C"), kernel.index("O")


def _per_channel(scale: Wide, axis: int, rank: int) -> Wide | None:
    """The scale as a vector along `axis`, if it varies along no other axis."""
    extents = (1,) * (rank - scale.ndim) + scale.shape
    if any(extent != 1 for index, extent in enumerate(extents) if index != axis):
        return None
    return scale.reshape(-1)


def _add(value: Expr, graph: Graph) -> Expr | None:
    """Two shifts in a row become one."""
    operand, shift = _with_constant(value, graph)
    inner = None if shift is None else graph.call(operand, "add")
    if shift is None or inner is None or not graph.only_use(operand):
        return None
    source, first = _with_constant(inner, graph)
    if first is None or shape(source) != shape(value):
        return None
    both = first + shift
    if both.size > first.size:  # a bias that became a whole map would cost more than it saves
        return None
    if _rounds(first, both, str(value.ty.dtype)):
        return None
    return relax.op.add(source, constant(both, str(value.ty.dtype)))


def _rounds(first: Wide, both: Wide, dtype: str) -> bool:
    """Whether a shift is so large that it rounds what it is added to, and is then taken away."""
    large = np.abs(first) >= 2.0 ** (ml_dtypes.finfo(dtype).nmant - _SPARE_BITS)
    return bool(np.any(large & (np.abs(both) < _LEFT * np.abs(first))))


def _subtract(value: Expr, graph: Graph) -> Expr | None:
    """A constant taken away from a product is a shift like any other."""
    shift = graph.constant(value.args[1])
    product = graph.call(value.args[0], *_CONVOLUTIONS, "matmul", "add")
    if shift is None or product is None or shape(value.args[0]) != shape(value):
        return None
    return relax.op.add(value.args[0], constant(-shift.astype(np.float64), str(value.ty.dtype)))


def _with_constant(value: Expr, graph: Graph) -> tuple[Expr, Wide | None]:
    """The operand of a commutative operator that varies, and the one that is constant."""
    left, right = value.args
    if (number := graph.constant(right)) is not None:
        return left, number.astype(np.float64)
    number = graph.constant(left)
    return right, None if number is None else number.astype(np.float64)


_RULES: Mapping[str, Rule] = MappingProxyType(
    {"add": _add, "divide": _divide, "multiply": _multiply, "subtract": _subtract}
)
