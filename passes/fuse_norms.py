"""Recombine normalisations that were written in pieces."""

from dataclasses import dataclass

import numpy as np
import tvm_ffi
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    are_known,
    constant,
    operator,
    rewrite,
    shape,
    with_attributes,
)
from hybridc.compiler.model import Array
from hybridc.passes import _row_norms

_OF_CHANNELS = ("nn.instance_norm", "nn.group_norm")
# Norms of 16 bits are joined on GPUs alone, where their kernels compute in float32.
_FLOATS = ("float32", "float16", "bfloat16")
_NORMS = (*_OF_CHANNELS, "nn.layer_norm", "nn.rms_norm")


@dataclass(frozen=True)
class FuseNorms(Pass):
    """Recombine normalisations that were written in pieces.

    Layer and RMS norms are pieces where an exporter has no operator for them.  TVM imports ONNX's
    instance norm as mean, variance and quotient, and exporters write group norms as instance norms
    between reshapes.  Layouts cannot pass through the pieces, and each piece is a kernel.  Constant
    scales and shifts per channel become part of the operator.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite until no pieces are left."""
        types = _FLOATS[: 1 if context.target.gpu is None else None]

        def rule(value: Expr, graph: Graph) -> Expr | None:
            return _fuse(value, graph) if getattr(value.ty, "dtype", "") in types else None

        return rewrite(module, rule)


def _fuse(value: Expr, graph: Graph) -> Expr | None:
    match operator(value):
        case "divide":
            norm = _instance_norm(value, graph)
            return _row_norms.row_norm(value, graph) if norm is None else norm
        case "reshape":
            return _group_norm(value, graph)
        case "multiply":
            norm = _row_norms.row_norm(value, graph)
            return _affine(value, graph) if norm is None else norm
        case "add":
            return _affine(value, graph)
        case _:
            return None


def _instance_norm(value: Expr, graph: Graph) -> Expr | None:
    """`(x - mean(x)) / sqrt(variance(x) + epsilon)` over all axes behind the channels."""
    deviation = graph.call(value.args[0], "subtract")
    root = graph.call(value.args[1], "sqrt")
    if deviation is None or root is None:
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
    if not are_known([channels]):
        return None
    axes = list(range(2, len(shape(x))))
    dtype = str(value.ty.dtype)
    scale, shift = (constant(make(channels), dtype) for make in (np.ones, np.zeros))
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
    dtype = str(value.ty.dtype)
    wide = [constant(np.repeat(n, each), dtype) for n in numbers if n is not None]
    axes = list(range(2, len(shape(x))))
    return relax.op.nn.group_norm(x, *wide, groups, 1, axes, float(norm.attrs.epsilon))


def _groups(whole: tuple[int, ...], parted: tuple[int, ...]) -> bool:
    """Whether a reshape keeps the images and cuts each at boundaries of channels."""
    return (
        len(whole) >= 3
        and len(parted) >= 3
        and are_known([whole[1], parted[1]])
        and whole[0] == parted[0]
        and whole[1] % parted[1] == 0
        and all(extent > 0 for extent in whole if are_known([extent]))
    )


def _affine(value: Expr, graph: Graph) -> Expr | None:
    """A factor or term for each channel, put into the scale and shift of the norm before it."""
    for operand, other in (value.args, value.args[::-1]):
        norm, number = graph.call(operand, *_NORMS), graph.constant(other)
        if norm is None or number is None or graph.uses[operand] > 1:
            continue
        each = _of_channels(number, norm)
        numbers = [n for x in norm.args[1:] if (n := graph.constant(x)) is not None]
        if each is None or len(numbers) + 1 != len(norm.args) or not _alike(norm, value):
            continue
        if operator(value) == "multiply":
            changed = [n * each for n in numbers]
        elif operator(norm) == "nn.rms_norm":  # has no shift
            continue
        else:
            changed = [numbers[0], numbers[1] + each]
        dtype = str(value.ty.dtype)
        return with_attributes(norm, [norm.args[0], *(constant(n, dtype) for n in changed)])
    return None


def _alike(norm: Expr, value: Expr) -> bool:
    return bool(tvm_ffi.structural_equal(norm.ty, value.ty))


def _channel(norm: Expr) -> int | None:
    """The axis along which a norm's scale lies; None where it lies along several."""
    axes = norm.attrs.axes
    if operator(norm) in _OF_CHANNELS:
        return int(norm.attrs.channel_axis)
    return int(axes[0]) % len(shape(norm)) if len(axes) == 1 else None


def _of_channels(number: Array, norm: Expr) -> Array | None:
    """The channels' numbers in a constant that holds one for each, or None."""
    rank, channel = len(shape(norm)), _channel(norm)
    wide = (1,) * (rank - number.ndim) + number.shape
    others = [extent for axis, extent in enumerate(wide) if axis != channel]
    if channel is None or len(wide) != rank or set(others) - {1}:
        return None
    if wide[channel] not in (1, shape(norm)[channel]):
        return None
    return np.broadcast_to(number.reshape(-1), (shape(norm)[channel],))
