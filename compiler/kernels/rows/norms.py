"""Loop nests for group and instance norms, whose sizes but the channels may be open.

The functions fit `relax.transform.LegalizeOps`, as those of `lowerings`.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from tvm import relax, te, tirx, topi

Expr = Any  # tvm.relax.Expr
Tensor = Any  # tvm.te.Tensor


def group_norm(builder: Any, call: Any) -> Expr:
    """Lower `relax.nn.group_norm` with the variance as mean squared deviation, in two passes.

    TVM computes E[x^2] - E[x]^2 in one pass, which cancels where the mean is large: at a mean of
    1000 and a deviation of 1 its float32 results are off by up to 7.  An open number of channels is
    left to TVM.
    """
    if not isinstance(_channels(call), int):
        return _by_tvm(builder, call)
    return _normalise(builder, call, int(call.attrs.num_groups))


def instance_norm(builder: Any, call: Any) -> Expr:
    """Lower `relax.nn.instance_norm` as `group_norm` with a group for each channel."""
    channels = _channels(call)
    if not isinstance(channels, int):
        return _by_tvm(builder, call)
    return _normalise(builder, call, channels)


def _channels(call: Any) -> Any:
    """The channels of a norm; no number where they are open, or nothing is known of its sizes."""
    extents = getattr(call.args[0].ty.shape, "values", None)
    return None if extents is None else _sizes(extents)[int(call.attrs.channel_axis)]


def _by_tvm(builder: Any, call: Any) -> Expr:
    return call.op.get_attr("FLegalize")(builder, call)


def _normalise(builder: Any, call: Any, groups: int) -> Expr:
    data, scale, shift = call.args
    shape, attrs = _sizes(data.ty.shape.values), call.attrs
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
    shape, epsilon = _sizes(data.ty.shape.values), float(call.attrs.epsilon)
    # An open count is an operand, or the kernel would have no name for it.
    count = tirx.const(shape[-1] // groups, "int64") * prod(shape[1:-1])
    wide = _wide(data.ty)

    def averaged(sums: Tensor, count: Any) -> Tensor:
        return _over_groups(sums, groups, lambda total, c: total / count.astype(wide))

    def factors(sums: Tensor, scale: Tensor, count: Any) -> Tensor:
        def factor(total: Any, c: Any) -> Any:
            variance = total / count.astype(wide)
            return tirx.rsqrt(variance + tirx.const(epsilon, wide)) * scale(c).astype(wide)

        return _over_groups(sums, groups, factor)

    def emit(function: Any, *operands: Expr) -> Expr:
        return builder.emit(builder.call_te(function, *operands))

    mean = emit(averaged, emit(_channel_sums, data), count)
    factor = emit(factors, emit(_channel_sums, data, mean), scale, count)
    return builder.call_te(_scaled, data, mean, factor, shift, primfunc_name_hint="group_norm")


def _channel_sums(x: Tensor, *mean: Tensor) -> Tensor:
    """Sums `[N, C]` of each channel, or of its squared deviations from the `mean`."""
    wide = _wide(x)
    extents = _sizes(x.shape)
    axes = [
        te.reduce_axis((_long(0), *_longs(extent)), name=f"k{axis}")
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
    batch, channels = _sizes(sums.shape)
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
    shape = _sizes(x.shape)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    dtype = _wide(x)
    count: Any = prod(shape[axis] for axis in axes)
    count = tirx.const(count, dtype) if isinstance(count, int) else count.astype(dtype)
    if not all(isinstance(extent, int) for extent in shape):
        shape = list(_longs(*shape))
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


def _longs(*values: Any) -> tuple[Any, ...]:
    return tuple(_long(value) if isinstance(value, int) else value for value in values)


def _sizes(extents: Any) -> list[Any]:
    """Sizes as numbers, and as expressions where they are open."""
    return [int(e) if isinstance(e, tirx.IntImm) else e for e in extents]
