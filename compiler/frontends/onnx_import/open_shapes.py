"""Operators whose result has a shape that follows from open sizes: Reshape, Expand, Slice, Range.

Each converter is given what is known of the inputs, and returns Relax, or None where nothing about
the node is open, which other converters then take.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx_import.sizes import Numbers, Sizes, UnknownError
from hybridc.compiler.rewrite import constant

Expr = Any  # a Relax expression

# Beyond this an end of a slice says "all".
_ALL = 2**31 - 1


@dataclass(frozen=True)
class OpenNode:
    """A node: its inputs as Relax (None: left out), as numbers where they are known."""

    inputs: Sequence[Expr]
    numbers: Sequence[Numbers | None]
    options: Mapping[str, Any]
    sizes: Sizes

    def shape(self, index: int = 0) -> list[Any]:
        """The sizes of an input.  Raises UnsupportedError where they are not known."""
        found = self.sizes.shape_of(self.inputs[index])
        if found is None:
            raise UnsupportedError("a shape that depends on the data")
        return found

    def list(self, index: int) -> list[Any] | None:
        """An input as a list of integers and expressions; None where it is not known as such."""
        numbers = self.numbers[index] if len(self.numbers) > index else None
        return None if numbers is None else list(numbers.values.flat)


def _dims(sizes: Sequence[Any]) -> Expr:
    return relax.ShapeExpr(
        [tirx.const(size, "int64") if isinstance(size, int) else size for size in sizes]
    )


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
    return relax.op.reshape(node.inputs[0], _dims(wanted))


def _rest(sizes: Sizes, extents: Sequence[Any], others: Sequence[Any]) -> Any:
    """What -1 stands for; sizes on both sides are left out, so that products stay simple."""
    left = list(extents)
    right: list[Any] = []
    for other in others:
        match = next((i for i, size in enumerate(left) if _same(sizes, size, other)), None)
        if match is None:
            right.append(other)
        else:
            left.pop(match)
    total, divisor = prod(left), prod(right)
    return sizes.plain(total if _is(divisor, 1) else tirx.floordiv(total, divisor))


def _same(sizes: Sizes, one: Any, other: Any) -> bool:
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    return bool(sizes.analyzer.can_prove_equal(one, other))


def _is(size: Any, number: int) -> bool:
    return isinstance(size, int) and size == number


def _expand(node: OpenNode) -> Expr | None:
    wanted, extents = node.list(1), node.shape()
    if wanted is None:
        return None
    rank = max(len(wanted), len(extents))
    pair = [[1] * (rank - len(side)) + list(side) for side in (extents, wanted)]
    result = [_broadcast(node.sizes, one, other) for one, other in zip(*pair, strict=True)]
    if len(result) == len(extents) and all(
        map(lambda a, b: _same(node.sizes, a, b), result, extents)
    ):
        return node.inputs[0]
    return relax.op.broadcast_to(node.inputs[0], _dims(result))


def _broadcast(sizes: Sizes, one: Any, other: Any) -> Any:
    """The size that two axes broadcast to.  Raises UnsupportedError where that is not known."""
    if _is(one, 1):
        return other
    if _is(other, 1) or _same(sizes, one, other):
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
    return relax.op.full(_dims(wanted), one, str(fill.dtype))


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
        if step < 0:  # what begins before the front begins at it, and may end before it
            start, stop = max(start, -extent), None if stop < -extent else stop
        low, high, _ = slice(start, stop, step).indices(extent)
        return low, high
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
    return relax.op.broadcast_to(node.inputs[0], _dims(result))


def _resize(node: OpenNode) -> Expr | None:
    """Images as large as sizes say that are not constant, as exporters write that of others."""
    wanted = node.list(3) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    if wanted is None or all(isinstance(size, int) for size in wanted):
        return None
    extents, text = node.shape(), _texts(node.options)
    mode = text.get("mode", "nearest")
    coordinates = text.get("coordinate_transformation_mode", "half_pixel")
    if any(node.options.get(name) for name in ("antialias", "axes", "exclude_outside")):
        raise UnsupportedError("such options, and sizes that are not constants")
    x = node.inputs[0]
    changed = [a for a, size in enumerate(wanted) if not _same(node.sizes, size, extents[a])]
    if mode == "nearest" and (coordinates, text.get("nearest_mode")) == ("asymmetric", "floor"):
        for axis in changed:
            x = _repeated(x, axis, extents[axis], wanted[axis])
        return x
    images = len(extents) == 4 and min(changed, default=2) > 1 and str(x.ty.dtype) == "float32"
    if mode != "linear" or not images or coordinates not in _ALIKE:
        raise UnsupportedError(f"mode={mode}, {coordinates} and sizes that are not constants")
    # Of one element these two have no distance to divide, or another place.
    apart = all(node.sizes.holds(size > 1) for size in wanted[2:])
    if coordinates != "half_pixel" and not apart:
        raise UnsupportedError(f"{coordinates} and open sizes that may be 1")
    size = _dims(wanted[2:])
    return relax.op.image.resize2d(x, size, coordinate_transformation_mode=coordinates)


_ALIKE = frozenset({"half_pixel", "pytorch_half_pixel", "align_corners"})


def _texts(options: Mapping[str, Any]) -> dict[str, str]:
    return {name: value.decode() for name, value in options.items() if isinstance(value, bytes)}


def _repeated(x: Expr, axis: int, extent: Any, wanted: Any) -> Expr:
    """Of each place along an axis the element at or before it, `floor(i * extent / wanted)`."""

    def number(size: Any) -> Expr:
        return relax.op.shape_to_tensor(_dims([size]))

    places = relax.op.multiply(relax.op.arange(0, wanted, 1, "int64"), number(extent))
    return relax.op.take(x, relax.op.floor_divide(places, number(wanted)), axis=axis)


CONVERTERS: Mapping[str, Callable[[OpenNode], Expr | None]] = MappingProxyType(
    {
        "ConstantOfShape": _constant_of_shape,
        "Expand": _expand,
        "Range": _range,
        "Reshape": _reshape,
        "Resize": _resize,
        "Slice": _slice,
        "Tile": _tile,
    }
)
