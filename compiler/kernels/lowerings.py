"""Loop nests for operators whose lowering in TVM is not accurate enough.

Each function fits `relax.transform.LegalizeOps`: it takes a block builder and a call, and returns
the expression that takes the call's place.
"""

from collections.abc import Callable, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, tirx, topi

Expr = Any  # tvm.relax.Expr
Tensor = Any  # tvm.te.Tensor

# The integer as wide as each type of IEEE 754, and infinity as that integer.
_INFINITY = MappingProxyType(
    {
        dtype: (integer, int(np.array(np.inf, dtype).view(integer)))
        for dtype, integer in (("float16", "int16"), ("float32", "int32"), ("float64", "int64"))
    }
)

# Rows of so few elements make no vectors, and a loop for each costs more than remainders.
_SHORT = 8
# TVM's kind of operator that is joined with no other.
_OPAQUE = 8


def group_norm(builder: Any, call: Any) -> Expr:
    """Lower `relax.nn.group_norm` with the variance as mean squared deviation, in two passes.

    TVM computes E[x^2] - E[x]^2 in one pass, which cancels where the mean is large: at a mean of
    1000 and a deviation of 1 its float32 results are off by up to 7.  Symbolic shapes are left to
    TVM.
    """
    if not _static(call.args[0]):
        return _by_tvm(builder, call)
    return _normalise(builder, call, int(call.attrs.num_groups))


def instance_norm(builder: Any, call: Any) -> Expr:
    """Lower `relax.nn.instance_norm` as `group_norm` with a group for each channel."""
    data = call.args[0]
    if not _static(data):
        return _by_tvm(builder, call)
    return _normalise(builder, call, _shape(data)[int(call.attrs.channel_axis)])


def tile(builder: Any, call: Any) -> Expr:
    """Lower `relax.tile` of fixed sizes as a broadcast, whose rows are neighbours in memory.

    TVM takes remainders of the places in the result, which no vector does.
    """
    data, repeats = call.args[0], [int(count) for count in call.attrs.repeats]
    if not _static(data) or 0 in _shape(data) or not all(repeats):
        return _by_tvm(builder, call)
    rank = max(len(repeats), len(_shape(data)))
    extents = [1] * (rank - len(_shape(data))) + _shape(data)
    repeats = [1] * (rank - len(repeats)) + repeats
    pairs = list(zip(repeats, extents, strict=True))
    if rank == 0 or (repeats[-1] > 1 and extents[-1] < _SHORT):
        return _by_tvm(builder, call)

    def kernel(x: Tensor) -> Tensor:
        shape = [size for pair in pairs for size in pair]
        return te.compute(shape, lambda *i: x(*i[1::2]), name="tiled")

    whole = builder.emit(relax.op.reshape(data, extents))
    # Joined with the reshape behind it, it would take remainders again.
    alone = {"op_pattern": _OPAQUE}
    tiled = builder.emit(
        builder.call_te(kernel, whole, primfunc_name_hint="tile", primfunc_attrs=alone)
    )
    return relax.op.reshape(tiled, [count * extent for count, extent in pairs])


def isnan(builder: Any, call: Any) -> Expr:
    """Lower `relax.isnan` as a comparison of bits, which vectorises as TVM's call does not."""
    return _by_bits(builder, call, lambda magnitude, infinity: magnitude > infinity)


def isinf(builder: Any, call: Any) -> Expr:
    """Lower `relax.isinf` as a comparison of bits."""
    return _by_bits(builder, call, lambda magnitude, infinity: magnitude.equal(infinity))


def isfinite(builder: Any, call: Any) -> Expr:
    """Lower `relax.isfinite` as a comparison of bits."""
    return _by_bits(builder, call, lambda magnitude, infinity: magnitude < infinity)


def with_constant(function: Callable[..., Tensor]) -> Callable[[Any, Any], Expr]:
    """Lower an operator of two operands, one of which may be a constant that misleads.

    TVM writes scalars into loop nests.  There it takes 0 * x and 0 / x for 0, which are NaN if x
    is; and LLVM is told that sums and products of integers do not overflow, so that it takes
    x + 4294967295 for 4294967295.  Such a constant stays a tensor.
    """

    def lower(builder: Any, call: Any) -> Expr:
        if not any(map(_misleads, call.args)):
            return _by_tvm(builder, call)
        return builder.call_te(function, *call.args, primfunc_name_hint=function.__name__)

    return lower


def _misleads(operand: Expr) -> bool:
    """Whether an operand is a float 0, or an integer of more than half of its range."""
    value: Any = getattr(operand, "value", None)  # of a constant
    if not isinstance(value, tvm.runtime.Tensor) or tuple(value.shape):
        return False
    number = value.numpy()
    if number.dtype.kind in "iu":
        return abs(int(number)) > np.iinfo(number.dtype).max // 2
    return number.dtype.kind == "f" and bool(number == 0)


def _by_bits(builder: Any, call: Any, compare: Callable[[Any, Any], Any]) -> Expr:
    """Compare the bits of a number without its sign with those of infinity."""
    dtype = str(call.args[0].ty.dtype)
    if dtype not in _INFINITY:
        return _by_tvm(builder, call)
    integer, infinity = _INFINITY[dtype]

    def element(x: Any) -> Any:
        unsigned = tirx.const(int(np.iinfo(integer).max), integer)
        magnitude = tirx.bitwise_and(tirx.reinterpret(integer, x), unsigned)
        return compare(magnitude, tirx.const(infinity, integer))

    def kernel(x: Tensor) -> Tensor:
        return te.compute(x.shape, lambda *i: element(x(*i)), name="classified")

    name = str(call.op.name).rsplit(".", 1)[-1]
    return builder.call_te(kernel, call.args[0], primfunc_name_hint=name)


def _by_tvm(builder: Any, call: Any) -> Expr:
    return call.op.get_attr("FLegalize")(builder, call)


def _normalise(builder: Any, call: Any, groups: int) -> Expr:
    data, scale, shift = call.args
    shape, attrs = _shape(data), call.attrs
    channel = int(attrs.channel_axis) % len(shape)
    if channel == len(shape) - 1 and {*map(int, attrs.axes)} == set(range(1, channel)):
        return _normalise_channels_last(builder, call, groups)
    # The channels become two axes, groups and the channels of a group; the second is reduced.
    per_group = [groups, shape[channel] // groups]
    grouped = [*shape[:channel], *per_group, *shape[channel + 1 :]]
    reduced = {int(axis) % len(shape) for axis in attrs.axes} | {channel}
    axes = sorted(axis + 1 if axis >= channel else axis for axis in reduced)

    def kernel(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return _two_passes((x, scale, shift), axes, channel, float(attrs.epsilon))

    normalised = builder.call_te(
        kernel,
        builder.emit(relax.op.reshape(data, grouped)),
        builder.emit(relax.op.reshape(scale, per_group)),
        builder.emit(relax.op.reshape(shift, per_group)),
        primfunc_name_hint="group_norm",
    )
    return relax.op.reshape(builder.emit(normalised), shape)


def _normalise_channels_last(builder: Any, call: Any, groups: int) -> Expr:
    """As `_normalise`, where a group is a few neighbouring numbers of every pixel.

    Channels are summed apart, whole vectors of them, and groups from those sums: each pass over
    the data reads memory in order, and threads share the channels.
    """
    data, scale, shift = call.args
    shape, epsilon = _shape(data), float(call.attrs.epsilon)
    count = prod(shape[1:]) // groups
    wide = _wide(data.ty)

    def averaged(sums: Tensor) -> Tensor:
        return _over_groups(sums, groups, lambda total, c: total / tirx.const(count, wide))

    def factors(sums: Tensor, scale: Tensor) -> Tensor:
        def factor(total: Any, c: Any) -> Any:
            variance = total / tirx.const(count, wide)
            return tirx.rsqrt(variance + tirx.const(epsilon, wide)) * scale(c).astype(wide)

        return _over_groups(sums, groups, factor)

    def emit(function: Any, *operands: Expr) -> Expr:
        return builder.emit(builder.call_te(function, *operands))

    mean = emit(averaged, emit(_channel_sums, data))
    factor = emit(factors, emit(_channel_sums, data, mean), scale)
    return builder.call_te(_scaled, data, mean, factor, shift, primfunc_name_hint="group_norm")


def _channel_sums(x: Tensor, *mean: Tensor) -> Tensor:
    """Sums `[N, C]` of each channel, or of its squared deviations from the `mean`."""
    wide = _wide(x)
    extents = [int(extent) for extent in x.shape]
    axes = [
        te.reduce_axis((_long(0), _long(extent)), name=f"k{axis}")
        for axis, extent in enumerate(extents[1:-1])
    ]

    def element(n: Any, c: Any) -> Any:
        value = x(n, *axes, c).astype(wide)
        for other in mean:
            value = (value - other(n, c)) * (value - other(n, c))
        return te.sum(value, axis=axes)

    return te.compute(_longs(extents[0], extents[-1]), element, name="sums")


def _scaled(x: Tensor, mean: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """`(x - mean) * factor + shift`, the first two `[N, C]`, the last `[C]`."""

    def element(*i: Any) -> Any:
        n, c = i[0], i[-1]
        value = (x(*i).astype(_wide(x)) - mean(n, c)) * factor(n, c) + shift(c).astype(_wide(x))
        return value.astype(x.dtype)

    return te.compute(x.shape, element, name="normalised")


def _over_groups(sums: Tensor, groups: int, element: Any) -> Tensor:
    """`element(sum of the group of channel c, c)` for sums `[N, C]`."""
    batch, channels = (int(extent) for extent in sums.shape)
    size = channels // groups
    if size == 1:
        return te.compute(sums.shape, lambda n, c: element(sums(n, c), c), name="groups")
    k = te.reduce_axis((_long(0), _long(size)), name="k")
    totals = te.compute(
        _longs(batch, groups), lambda n, g: te.sum(sums(n, g * size + k), axis=k), name="totals"
    )
    return te.compute(sums.shape, lambda n, c: element(totals(n, c // size), c), name="groups")


def _two_passes(
    operands: tuple[Tensor, Tensor, Tensor], axes: Sequence[int], group: int, epsilon: float
) -> Tensor:
    """`(x - mean) / sqrt(variance + epsilon) * scale + shift`, statistics over `axes`."""
    x, scale, shift = operands
    shape = [int(extent) for extent in x.shape]
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    dtype = _wide(x)
    count = tirx.const(prod(shape[axis] for axis in axes), dtype)
    wide = topi.cast(x, dtype) if x.dtype != dtype else x

    def rows(index: Sequence[Any]) -> list[Any]:
        return [index[axis] for axis in kept]

    mean = topi.divide(topi.sum(wide, list(axes)), count)
    deviation = te.compute(shape, lambda *i: wide(*i) - mean(*rows(i)), name="deviation")
    variance = topi.divide(topi.sum(topi.multiply(deviation, deviation), list(axes)), count)
    factor = te.compute(
        variance.shape,
        lambda *i: tirx.rsqrt(variance(*i) + tirx.const(epsilon, dtype)),
        name="factor",
    )

    def element(*index: Any) -> Any:
        place = index[group], index[group + 1]
        value = deviation(*index) * factor(*rows(index))
        scaled = value * scale(*place).astype(dtype) + shift(*place).astype(dtype)
        return scaled.astype(x.dtype)

    return te.compute(shape, element, name="normalised")


def _wide(x: Any) -> str:
    """The type in which statistics are computed."""
    return "float64" if str(x.dtype) == "float64" else "float32"


def _long(value: int) -> Any:
    return tirx.const(value, "int64")


def _longs(*values: int) -> tuple[Any, ...]:
    return tuple(_long(value) for value in values)


def _static(data: Expr) -> bool:
    shape = data.ty.shape
    return shape is not None and all(isinstance(e, tirx.IntImm) for e in shape.values)


def _shape(data: Expr) -> list[int]:
    return [int(extent) for extent in data.ty.shape.values]
