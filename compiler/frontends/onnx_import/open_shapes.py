"""Operators whose result has a shape that follows from open sizes: Reshape, Expand, Slice, Range.

Each converter is given what is known of the inputs, and returns Relax, or None where nothing about
the node is open, which other converters then take.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx_graph import slices
from hybridc.compiler.frontends.onnx_import.open_node import Expr, OpenNode, shape_of
from hybridc.compiler.frontends.onnx_import.open_resizing import resize
from hybridc.compiler.frontends.onnx_import.sizes import Sizes, UnknownError
from hybridc.compiler.ir.rewrite import constant

# Beyond this an end of a slice says "all".
_ALL = 2**31 - 1


def _reshape(node: OpenNode) -> Expr | None:
    wanted, extents = node.list(1), node.shape()
    if wanted is None:
        return None
    if not node.options.get("allowzero", 0):
        wanted = [extents[i] if _is(size, 0) else size for i, size in enumerate(wanted)]
    free = [i for i, size in enumerate(wanted) if _is(size, -1)]
    if free:
        rest = [size for size in wanted if not _is(size, -1)]
        wanted[free[0]] = _rest(node.sizes, extents, rest)
    return relax.op.reshape(node.inputs[0], shape_of(wanted))


def _rest(sizes: Sizes, extents: Sequence[Any], others: Sequence[Any]) -> Any:
    """What -1 stands for; sizes on both sides are left out, so that products stay simple."""
    left = list(extents)
    right: list[Any] = []
    for other in others:
        match = next((i for i, size in enumerate(left) if sizes.same(size, other)), None)
        if match is None:
            right.append(other)
        else:
            left.pop(match)
    total, divisor = prod(left), prod(right)
    return sizes.plain(total if _is(divisor, 1) else tirx.floordiv(total, divisor))


def _is(size: Any, number: int) -> bool:
    return isinstance(size, int) and size == number


def _expand(node: OpenNode) -> Expr | None:
    wanted, extents = node.list(1), node.shape()
    if wanted is None:
        return None
    rank = max(len(wanted), len(extents))
    pair = [[1] * (rank - len(side)) + list(side) for side in (extents, wanted)]
    result = [_broadcast(node.sizes, one, other) for one, other in zip(*pair, strict=True)]
    if len(result) == len(extents) and all(map(node.sizes.same, result, extents)):
        return node.inputs[0]
    return relax.op.broadcast_to(node.inputs[0], shape_of(result))


def _broadcast(sizes: Sizes, one: Any, other: Any) -> Any:
    """The size that two axes broadcast to.  Raises UnsupportedError where that is not known."""
    if _is(one, 1):
        return other
    if _is(other, 1) or sizes.same(one, other):
        return one
    raise UnsupportedError(f"sizes that may differ, {one} and {other}")


def _constant_of_shape(node: OpenNode) -> Expr | None:
    import onnx

    wanted = node.list(0)
    if wanted is None:
        return None
    value = node.options.get("value")
    fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    one = constant(fill.reshape(()), str(fill.dtype))
    return relax.op.full(shape_of(wanted), one, str(fill.dtype))


def _range(node: OpenNode) -> Expr | None:
    places = [node.list(i) for i in range(3)]
    if any(place is None for place in places):
        return None
    start, limit, step = (place[0] for place in places if place is not None)
    first = node.numbers[0]
    return relax.op.arange(start, limit, step, first.dtype if first else "int64")


def _slice(node: OpenNode) -> Expr | None:
    extents = node.shape()
    count = len(node.inputs)
    starts, ends = node.list(1), node.list(2)
    if starts is None or ends is None:
        return None
    axes = node.list(3) if count > 3 and node.inputs[3] is not None else list(range(len(starts)))
    steps = node.list(4) if count > 4 and node.inputs[4] is not None else [1] * len(starts)
    if axes is None or steps is None or not all(isinstance(s, int) for s in [*axes, *steps]):
        raise UnsupportedError("axes or steps that are not constant")
    axes = [axis % len(extents) for axis in axes]
    places = [
        (axis, *_bounds(node.sizes, extents[axis], (start, stop, step)), step)
        for axis, start, stop, step in zip(axes, starts, ends, steps, strict=True)
    ]
    return _sliced(node.inputs[0], extents, places)


def _bounds(sizes: Sizes, extent: Any, place: tuple[Any, Any, int]) -> tuple[Any, Any]:
    """Where a slice begins and ends, both within the axis."""
    start, stop, step = place
    if step < 0 and not isinstance(extent, int):
        raise UnsupportedError("a step back along an open axis")
    if isinstance(extent, int) and isinstance(start, int) and isinstance(stop, int):
        low, high, _ = slices.bounds(extent, place)
        return low, high if step < 0 else max(low, high)
    if step < 0:
        raise UnsupportedError("a step back from an open size")
    return _within(sizes, extent, start), _within(sizes, extent, stop)


def _within(sizes: Sizes, extent: Any, place: Any) -> Any:
    """A place along an axis, counted from its front and inside it."""
    if isinstance(place, int) and place >= _ALL:
        return extent
    try:
        negative = sizes.truth(place < 0)
    except UnknownError:
        raise UnsupportedError(f"a place, {place}, that may be negative") from None
    if isinstance(extent, int) and not negative:
        # A table, as of positions: elements that it lacks would be missing in what follows.
        sizes.limit(place, extent, f"a Slice takes so many of {extent} elements")
    place = sizes.plain(place + extent if negative else place)
    below = sizes.plain(tirx.max(place, 0) if negative and not isinstance(place, int) else place)
    if sizes.holds(below <= extent):
        return below
    return sizes.plain(tirx.min(below, extent))


def _sliced(
    data: Expr, extents: Sequence[Any], places: Sequence[tuple[int, Any, Any, int]]
) -> Expr:
    """The slice, by axis, begin, end and step; what leaves everything is the tensor itself.

    Steps back, along axes of fixed size, are looked up: TVM takes them for steps ahead.
    """
    for axis, low, high, step in places:
        if step < 0:
            data = relax.op.take(data, relax.const(np.arange(low, high, step), "int64"), axis)
    places = [place for place in places if place[3] > 0]
    if all(
        _is(low, 0) and step == 1 and _equal(high, extents[axis])
        for axis, low, high, step in places
    ):
        return data
    axes, *sides = zip(*places, strict=True)
    values = [[relax.prim_value(v) for v in side] for side in sides]
    return relax.op.strided_slice(data, list(axes), *values, assume_inbound=True)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, int) or isinstance(other, int):
        return isinstance(one, int) and isinstance(other, int) and one == other
    return bool(one.same_as(other))


def _tile(node: OpenNode) -> Expr | None:
    """Repeats that are open, of axes of size 1: a broadcast."""
    repeats, extents = node.list(1), node.shape()
    if repeats is None or all(isinstance(r, int) for r in repeats):
        return None
    result: list[Any] = []
    for size, repeat in zip(extents, repeats, strict=True):
        if not _is(size, 1) and not _is(repeat, 1):
            raise UnsupportedError(f"repeats, {repeat}, that are open")
        result.append(repeat if _is(size, 1) else size)
    return relax.op.broadcast_to(node.inputs[0], shape_of(result))


CONVERTERS: Mapping[str, Callable[[OpenNode], Expr | None]] = MappingProxyType(
    {
        "ConstantOfShape": _constant_of_shape,
        "Expand": _expand,
        "Range": _range,
        "Reshape": _reshape,
        "Resize": resize,
        "Slice": _slice,
        "Tile": _tile,
    }
)
