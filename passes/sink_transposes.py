"""Move transposes past elementwise operators, to where they cancel out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    Rule,
    are_known,
    constant,
    operator,
    rewrite,
    shape,
    with_attributes,
)

_UNARY = {
    *("abs", "acos", "acosh", "asin", "asinh", "astype", "atan", "atanh", "bitwise_not", "ceil"),
    *("clip", "cos", "cosh", "erf", "exp", "floor", "isfinite", "isinf", "isnan", "log"),
    *("logical_not", "negative", "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.relu", "nn.relu6"),
    *("nn.selu", "nn.silu", "nn.softplus", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh"),
    *("sqrt", "square", "tan", "tanh", "trunc"),
}
_MORE = {
    *(
        "add",
        "atan2",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        "divide",
        "equal",
        "floor_divide",
    ),
    *("floor_mod", "greater", "greater_equal", "left_shift", "less", "less_equal", "log_add_exp"),
    *("logical_and", "logical_or", "logical_xor", "maximum", "minimum", "mod", "multiply"),
    *("not_equal", "power", "right_shift", "subtract", "where"),
}
# Each has statistics of its own for every channel, of whatever axes.
_NORMS = {"nn.group_norm", "nn.instance_norm"}
# Each changes places along its `axis` alone.
_ALONG = {"cumprod", "cumsum", "flip", "take"}
# A volume's channels before its slices.
_VOLUME = [0, 4, 1, 2, 3]


@dataclass(frozen=True)
class SinkTransposes(Pass):
    """Move transposes past elementwise operators, to where they cancel out.

    They also pass cumulative sums, reversals, taking at constant positions along one axis,
    normalisations of channels, and concatenations and pooling of volumes.
    TVM's conversion of layouts stops at operators for which it has no layout, such as `where`, and
    leaves a transpose at each operand and one at the result.  A transpose of all operands becomes
    one of the result, and so on down to the transpose that undoes it; constants, and operands that
    extend along one axis only, are rearranged.  So are the weights of a product whose operand is
    flattened into rows after a transpose.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite until no transpose can go further."""
        return rewrite(module, _sink)


def _sink(value: Expr, graph: Graph) -> Expr | None:
    if (sink := _OTHERS.get(operator(value))) is not None:
        return sink(value, graph)
    if operator(value) not in _UNARY | _MORE:
        return None
    axes = next((a for x in value.args if (a := _axes(x, value, graph))), None)
    if axes is None:
        return None
    operands = [_laid_out(operand, axes, graph) for operand in value.args]
    if any(operand is None for operand in operands):
        return None
    return relax.op.permute_dims(tvm.ir.Call(value.op, operands, value.attrs, value.ty_args), axes)


def _only_turned(source: Expr, graph: Graph) -> tuple[Expr, list[int]] | None:
    """What is transposed for no other reader, and the axes."""
    call = graph.call(source, "permute_dims")
    if call is None or call.attrs.axes is None or not graph.only_use(source):
        return None
    return call.args[0], [int(axis) for axis in call.attrs.axes]


def _joined(value: Expr, graph: Graph) -> Expr | None:
    """The transpose of volumes that were joined before it.

    Other tensors are joined as they are turned, each in its place.
    """
    parts = graph.value(value.args[0])
    if not isinstance(parts, tvm.ir.Tuple) or value.attrs.axis is None:
        return None
    turned = [found for part in parts.fields if (found := _only_turned(part, graph)) is not None]
    if len(turned) < len(parts.fields) or any(axes != _VOLUME for _, axes in turned):
        return None
    axis = _VOLUME[int(value.attrs.axis) % len(_VOLUME)]
    joined = relax.op.concat([source for source, _ in turned], axis)
    return relax.op.permute_dims(joined, _VOLUME)


def _normalised(value: Expr, graph: Graph) -> Expr | None:
    """The transpose of channels that were normalised before it."""
    if (turned := _only_turned(value.args[0], graph)) is None:
        return None
    source, axes = turned
    channel = axes[int(value.attrs.channel_axis) % len(axes)]
    over = sorted(axes[int(axis) % len(axes)] for axis in value.attrs.axes)
    moved = with_attributes(value, [source, *value.args[1:]], channel_axis=channel, axes=over)
    return relax.op.permute_dims(moved, axes)


def _pooled(value: Expr, graph: Graph) -> Expr | None:
    """The transpose of volumes that were pooled channels last."""
    turned = _only_turned(value.args[0], graph)
    if turned is None or turned[1] != _VOLUME or str(value.attrs.layout) != "NCDHW":
        return None
    moved = with_attributes(value, [turned[0]], layout="NDHWC", out_layout="NDHWC")
    return relax.op.permute_dims(moved, _VOLUME)


def _along(value: Expr, graph: Graph) -> Expr | None:
    """The transpose of an operator along one axis of what was transposed."""
    turned = _only_turned(value.args[0], graph)
    if turned is None or value.attrs.axis is None:
        return None
    if not all(_row(places, graph) for places in value.args[1:]):
        return None
    source, axes = turned
    axis = axes[int(value.attrs.axis) % len(axes)]
    moved = with_attributes(value, [source, *value.args[1:]], axis=axis)
    return relax.op.permute_dims(moved, axes)


def _flattened(value: Expr, graph: Graph) -> Expr | None:
    """The product of what was transposed and flattened to rows, as it was before, and a matrix.

    The rows of the matrix are in the order of the axes as they were.
    """
    data, matrix = value.args[0], graph.constant(value.args[1])
    flat = graph.call(data, "reshape")
    if flat is None or matrix is None or matrix.ndim != 2:
        return None
    turned = graph.call(flat.args[0], "permute_dims")
    if turned is None or turned.attrs.axes is None:
        return None
    first, *axes = (int(axis) for axis in turned.attrs.axes)
    rows, *extents = shape(turned)
    if first or not are_known(extents) or shape(data) != (rows, prod(extents)):
        return None
    if not (graph.only_use(data) and graph.only_use(flat.args[0])):
        return None
    order = [*np.argsort(axes), len(axes)]
    moved = matrix.reshape(*extents, -1).transpose(order).reshape(matrix.shape)
    rows_before = relax.op.reshape(turned.args[0], flat.args[1])
    dtype = str(value.args[1].ty.dtype)
    operands = [rows_before, constant(moved, dtype)]
    return tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)


def _row(places: Expr, graph: Graph) -> bool:
    """Whether the places to take are known, and as many axes as they are taken along: one."""
    known = graph.constant(places)
    return known is not None and known.ndim == 1


def _axes(operand: Expr, value: Expr, graph: Graph) -> list[int] | None:
    """The axes of a transpose that makes an operand as large as the result for no other reader."""
    call = graph.call(operand, "permute_dims")
    if call is None or call.attrs.axes is None or not graph.only_use(operand):
        return None
    return [int(axis) for axis in call.attrs.axes] if shape(operand) == shape(value) else None


def _laid_out(operand: Expr, axes: Sequence[int], graph: Graph) -> Expr | None:
    """An operand as it is before the transpose by `axes`; None if it would have to be moved."""
    if not isinstance(operand.ty, relax.TensorType):
        return operand  # a bound of a clip
    call = graph.call(operand, "permute_dims")
    if call is not None and call.attrs.axes is not None:
        same = list(map(int, call.attrs.axes)) == list(axes)
        return call.args[0] if same and graph.only_use(operand) else None
    extents = shape(operand)
    wide: list[Any] = [*[1] * (len(axes) - len(extents)), *extents]  # open ones are expressions
    order = sorted(range(len(axes)), key=lambda i: axes[i])
    if sum(not isinstance(extent, int) or extent != 1 for extent in wide) <= 1:
        return operand if not extents else relax.op.reshape(operand, [wide[i] for i in order])
    if graph.constant(operand) is None:
        return None
    return relax.op.permute_dims(relax.op.reshape(operand, wide), order)


_OTHERS: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(_ALONG, _along),
        **dict.fromkeys(_NORMS, _normalised),
        "concat": _joined,
        "matmul": _flattened,
        "nn.max_pool3d": _pooled,
    }
)
