"""Recombine instance and group normalisations that were written in pieces."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm_ffi
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.model import Array
from hybridc.compiler.rewrite import Expr, Graph, constant, operator, rewrite, shape

_NORMS = ("nn.instance_norm", "nn.group_norm")


@dataclass(frozen=True)
class FuseNorms(Pass):
    """Recombine instance and group normalisations that were written in pieces.

    TVM imports ONNX's instance norm as mean, variance and quotient, and exporters write group norms
    as instance norms between reshapes.  Layouts cannot pass through the pieces.  Constant scales
    and shifts per channel become part of the operator.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite until no pieces are left."""
        return rewrite(module, _fuse)


def _fuse(value: Expr, graph: Graph) -> Expr | None:
    match operator(value):
        case "divide":
            return _instance_norm(value, graph)
        case "reshape":
            return _group_norm(value, graph)
        case "multiply" | "add":
            return _affine(value, graph)
        case _:
            return None


def _instance_norm(value: Expr, graph: Graph) -> Expr | None:
    """`(x - mean(x)) / sqrt(variance(x) + epsilon)` over all axes behind the channels."""
    deviation = graph.call(value.args[0], "subtract")
    root = graph.call(value.args[1], "sqrt")
    if deviation is None or root is None or str(value.ty.dtype) != "float32":
        return None
    x, mean = deviation.args[0], graph.call(deviation.args[1], "mean")
    biased = graph.call(root.args[0], "add")
    if mean is None or biased is None or len(shape(value)) < 3:
        return None
    variance, epsilon = graph.call(biased.args[0], "variance"), graph.constant(biased.args[1])
    if variance is None or epsilon is None or epsilon.size != 1:
        return None
    if not all(_statistic(part, x) for part in (mean, variance)):
        return None
    channels = shape(x)[1]
    axes = list(range(2, len(shape(x))))
    scale, shift = (constant(make(channels), "float32") for make in (np.ones, np.zeros))
    return relax.op.nn.instance_norm(x, scale, shift, 1, axes, float(epsilon.item()))


def _statistic(call: Expr, x: Expr) -> bool:
    """Whether a mean or variance is one of each channel of each image of `x`."""
    axes = call.attrs.axis
    rank = len(shape(x))
    return (
        bool(call.attrs.keepdims)
        and axes is not None
        and call.args[0].same_as(x)
        and sorted(int(axis) % rank for axis in axes) == list(range(2, rank))
    )


def _group_norm(value: Expr, graph: Graph) -> Expr | None:
    """`reshape(instance_norm(reshape(x)))`, where the reshapes join channels and pixels."""
    norm = graph.call(value.args[0], "nn.instance_norm")
    parted = None if norm is None else graph.call(norm.args[0], "reshape")
    if norm is None or parted is None or int(norm.attrs.channel_axis) != 1:
        return None
    x, groups = parted.args[0], shape(parted)[1]
    if shape(value) != shape(x) or not _groups(shape(x), shape(parted)):
        return None
    numbers = [graph.constant(operand) for operand in norm.args[1:]]
    if any(number is None for number in numbers):
        return None
    each = shape(x)[1] // groups
    wide = [constant(np.repeat(n, each), "float32") for n in numbers if n is not None]
    axes = list(range(2, len(shape(x))))
    return relax.op.nn.group_norm(x, *wide, groups, 1, axes, float(norm.attrs.epsilon))


def _groups(whole: tuple[int, ...], parted: tuple[int, ...]) -> bool:
    """Whether a reshape keeps the images and cuts each at boundaries of channels."""
    return (
        len(whole) >= 3
        and len(parted) >= 3
        and whole[0] == parted[0]
        and whole[1] % parted[1] == 0
        and all(extent > 0 for extent in whole)
    )


def _affine(value: Expr, graph: Graph) -> Expr | None:
    """A factor or term for each channel, put into the scale and shift of the norm before it."""
    for operand, other in (value.args, value.args[::-1]):
        norm, number = graph.call(operand, *_NORMS), graph.constant(other)
        if norm is None or number is None or graph.uses[operand] > 1:
            continue
        scale, shift = (graph.constant(x) for x in norm.args[1:])
        each = _of_channels(number, norm)
        if scale is None or shift is None or each is None:
            continue
        if not tvm_ffi.structural_equal(norm.ty, value.ty):
            continue
        if operator(value) == "multiply":
            return _with(norm, scale * each, shift * each)
        return _with(norm, scale, shift + each)
    return None


def _of_channels(number: Array, norm: Expr) -> Array | None:
    """The channels' numbers in a constant that holds one for each, or None."""
    rank, channel = len(shape(norm)), int(norm.attrs.channel_axis)
    wide = (1,) * (rank - number.ndim) + number.shape
    others = [extent for axis, extent in enumerate(wide) if axis != channel]
    if len(wide) != rank or set(others) - {1} or wide[channel] not in (1, shape(norm)[channel]):
        return None
    return np.broadcast_to(number.reshape(-1), (shape(norm)[channel],))


def _with(norm: Expr, scale: Array, shift: Array) -> Any:
    operands = [norm.args[0], constant(scale, "float32"), constant(shift, "float32")]
    attrs = norm.attrs
    axes = [int(axis) for axis in attrs.axes]
    channel, epsilon = int(attrs.channel_axis), float(attrs.epsilon)
    if operator(norm) == "nn.instance_norm":
        return relax.op.nn.instance_norm(*operands, channel, axes, epsilon)
    return relax.op.nn.group_norm(*operands, int(attrs.num_groups), channel, axes, epsilon)
