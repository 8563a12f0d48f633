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
from hybridc.compiler.frontends.onnx_import.open_padding import pad
from hybridc.compiler.frontends.onnx_import.open_resizing import resize
from hybridc.compiler.frontends.onnx_import.open_selection import top_k
from hybridc.compiler.frontends.onnx_import.sizes import Fraction, Sizes, UnknownError
from hybridc.compiler.ir.rewrite import constant

# Longer than any axis; an end of a slice from here on says "all".
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
    if any(isinstance(place, Fraction) for place in (start, limit, step)):
        raise UnsupportedError("steps or ends that are not whole")
    first = node.numbers[0]
    made = relax.op.arange(start, limit, step, "int64")
    return relax.op.astype(made, first.dtype) if first and first.dtype != "int64" else made


def _slice(node: OpenNode) -> Expr | None:
    extents = node.shape()
    starts, ends, axes, steps = (
        _listed(node, place, name)
        for place, name in enumerate(("starts", "ends", "axes", "steps"), 1)
    )
    if starts is None or ends is None:
        return None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not all(isinstance(s, int) for s in [*axes, *steps]):
        raise UnsupportedError("axes or steps that are not constant")
    axes = [axis % len(extents) for axis in axes]
    data, places = node.inputs[0], list[tuple[int, Any, Any, int]]()
    for axis, start, stop, stride in zip(axes, starts, ends, steps, strict=True):
        step = max(min(stride, _ALL), -_ALL)  # longer than any axis, and no sum overflows
        place = (start, stop, step)
        if step < 0 and not isinstance(extents[axis], int):
            data = relax.op.flip(data, axis)
            places.append((axis, *_from_back(node.sizes, extents[axis], place), -step))
        else:
            places.append((axis, *_bounds(node.sizes, extents[axis], place), step))
    return _sliced(data, extents, places)


def _listed(node: OpenNode, place: int, attribute: str) -> list[Any] | None:
    """An operand that is a list, or an attribute in older opsets; None where it is left out.

    Raises UnsupportedError where axes or steps depend on the data.
    """
    given = node.inputs[place] if len(node.inputs) > place else None
    if given is None:
        found = node.options.get(attribute)
        return None if found is None else list(found)
    numbers = node.list(place)
    if numbers is None and attribute in ("axes", "steps"):
        raise UnsupportedError("axes or steps that are not constant")
    return numbers


def _bounds(sizes: Sizes, extent: Any, place: tuple[Any, Any, int]) -> tuple[Any, Any]:
    """Where a slice begins and ends, both within the axis."""
    start, stop, step = place
    if isinstance(extent, int) and isinstance(start, int) and isinstance(stop, int):
        low, high, _ = slices.bounds(extent, place)
        return low, high if step < 0 else max(low, high)
    if step < 0:
        raise UnsupportedError("a step back from an open size")
    return _in_order(sizes, _within(sizes, extent, start), _within(sizes, extent, stop))


def _from_back(sizes: Sizes, extent: Any, place: tuple[Any, Any, int]) -> tuple[Any, Any]:
    """Where a slice that goes back along an open axis begins and ends, counted from its back."""
    start, stop, _ = place
    if not isinstance(start, int) or not isinstance(stop, int):
        raise UnsupportedError("a step back from an open size")
    last = extent - 1

    def counted(index: int, most: Any) -> Any:
        if index < 0:
            return tirx.min(tirx.const(min(-index - 1, _ALL), "int64"), most)
        return tirx.max(last - index, 0) if index < _ALL else 0

    end = extent if stop in slices.ALL else counted(stop, extent)
    return _in_order(sizes, sizes.plain(counted(start, last)), sizes.plain(end))


def _in_order(sizes: Sizes, low: Any, high: Any) -> tuple[Any, Any]:
    """The bounds of a slice, whose end is not before its begin."""
    return low, high if sizes.holds(low <= high) else sizes.plain(tirx.max(low, high))


def _within(sizes: Sizes, extent: Any, place: Any) -> Any:
    """A place along an axis, counted from its front and inside it."""
    if isinstance(place, int) and place >= _ALL:
        return extent
    if not isinstance(place, int) and not sizes.holds(place < 0):
        # Places of both signs mean two things: a model that takes the rest of a table means one.
        sizes.lower_until_natural(place, "else a Slice begins before its table")
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
    """A broadcast along a new axis before each that is repeated, and then joined to it."""
    repeats, extents = node.list(1), node.shape()
    if repeats is None:
        return None
    apart: list[Any] = []
    wide: list[Any] = []
    for size, repeat in zip(extents, repeats, strict=True):
        lone = _is(size, 1) or _is(repeat, 1)
        apart += [size] if lone else [1, size]
        wide += [repeat if _is(size, 1) else size] if lone else [repeat, size]
    data = node.inputs[0]
    if len(apart) > len(extents):
        data = relax.op.reshape(data, shape_of(apart))
    spread = relax.op.broadcast_to(data, shape_of(wide))
    if len(apart) == len(extents):
        return spread
    total = [node.sizes.plain(s * r) for s, r in zip(extents, repeats, strict=True)]
    return relax.op.reshape(spread, shape_of(total))


CONVERTERS: Mapping[str, Callable[[OpenNode], Expr | list[Expr] | None]] = MappingProxyType(
    {
        "ConstantOfShape": _constant_of_shape,
        "Expand": _expand,
        "Pad": pad,
        "Range": _range,
        "Reshape": _reshape,
        "Resize": resize,
        "Slice": _slice,
        "Tile": _tile,
        "TopK": top_k,
    }
)
