"""Advanced indexing: tensors of places for some axes, read and written."""

from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr, Scope, dtype, static
from hybridc.compiler.ir.rewrite import constant


def _read(c: Call) -> Expr:
    """The indexed axes are brought to the front, and become one."""
    s, x, indices = c.scope, c["self"], _indices(c)
    axes = list(indices)
    if len(axes) == 1 and len(static(indices[axes[0]])) <= 1:
        return s.take(x, _inside(s, indices[axes[0]], static(x)[axes[0]]), axis=axes[0])
    rest = [axis for axis in range(len(static(x))) if axis not in axes]
    kept = [static(x)[axis] for axis in rest]
    flat = s.reshape(s.permute_dims(x, [*axes, *rest]), [-1, *kept])
    numbers = _numbers(s, indices, static(x))
    shape = list(static(numbers))
    taken = s.take(flat, s.reshape(numbers, [-1]), axis=0)
    taken = s.reshape(taken, [*shape, *kept])
    return s.permute_dims(taken, _order(axes, len(shape), len(rest)))


def _selected(c: Call) -> Expr:
    """Whole slices along an axis."""
    s, x, index = c.scope, c["self"], c["index"]
    index = s.reshape(index, [1]) if not static(index) else index
    if not static(x):
        return s.reshape(x, list(c.results[0][0]))
    return s.take(x, index, axis=c["dim"])


def _order(axes: Sequence[int], indexed: int, rest: int) -> list[int]:
    """Axes of places stand where the indexed ones were, if these are neighbours; else in front."""
    order = list(range(indexed + rest))
    if axes[-1] - axes[0] + 1 != len(axes):
        return order
    before = axes[0]
    return [
        *range(indexed, indexed + before),
        *range(indexed),
        *range(indexed + before, indexed + rest),
    ]


def _written(c: Call) -> Expr:
    """Rows, of all axes behind the last indexed one, to the places that their numbers say.

    The tensor keeps its layout: it may be a cache, of which a few rows are written.
    """
    if (masked := _masked(c)) is not None:
        return masked
    s, x, indices = c.scope, c["self"], _indices(c)
    axes, shape = list(indices), static(x)
    if 0 in shape:
        return x
    counted = range(max(axes) + 1)
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    between = [shape[axis] for axis in counted if axis not in axes]
    many = _broadcast(indices)
    if 0 in many:
        return x
    steps = {axis: prod(shape[axis + 1 : len(counted)]) for axis in counted}
    numbers: Any = None
    for axis, index in indices.items():
        number = s.multiply(_inside(s, index, shape[axis]), steps[axis])
        numbers = number if numbers is None else s.add(numbers, number)
    if between:
        apart = [np.arange(shape[axis]) * steps[axis] for axis in counted if axis not in axes]
        rows: Any = sum(np.ix_(*apart))
        rows = rows.reshape(between + [1] * len(many))
        numbers = s.add(constant(rows, "int64"), numbers)
    count = prod(between) * prod(many)
    values = _values_of(c, many, axes, rest, len(between))
    size = prod(shape[len(counted) :])
    flat = s.reshape(x, [prod(shape[: len(counted)]), size])
    how = "add" if c["accumulate"] else "update"
    values, places = s.reshape(values, [count, size]), s.reshape(numbers, [count, 1])
    return s.reshape(s.scatter_nd(flat, places, values, reduction=how), list(shape))


def _masked(c: Call) -> Expr | None:
    """The same for each place that one mask marks; None where it is no such case."""
    given = [(axis, index) for axis, index in enumerate(c["indices"]) if index is not None]
    if len(given) != 1 or dtype(given[0][1]) != "bool":
        return None
    s, x, values, ((first, mask),) = c.scope, c["self"], c["values"], given
    marked, shape = static(mask), static(values)
    behind = len(static(x)) - first - len(marked)
    if prod(shape) != 1 and (first or len(shape) > behind):
        return None
    values = s.reshape(values, [] if prod(shape) == 1 else list(shape))
    mask = s.reshape(mask, [*marked, *[1] * behind])
    return s.where(mask, s.add(x, values) if c["accumulate"] else values, x)


def _broadcast(indices: Mapping[int, Expr]) -> list[int]:
    return list(np.broadcast_shapes(*(static(index) for index in indices.values())))


def _values_of(
    c: Call, many: Sequence[int], axes: Sequence[int], rest: Sequence[int], between: int
) -> Expr:
    """What is written, by the axes between the indexed ones, the places, and the axes behind."""
    s, shape, n = c.scope, static(c["self"]), len(many)
    order = _order(axes, n, len(rest))
    whole = [*many, *(shape[axis] for axis in rest)]
    values = s.broadcast_to(c["values"], [whole[axis] for axis in order])
    axis_of = list(np.argsort(order))
    turned = [*range(n, n + between), *range(n), *range(n + between, n + len(rest))]
    return s.permute_dims(values, [int(axis_of[axis]) for axis in turned])


def _indices(c: Call) -> dict[int, Expr]:
    """The places by axis.  Raises UnsupportedError for a mask that only the data tell."""
    found = {axis: index for axis, index in enumerate(c["indices"]) if index is not None}
    if any(dtype(index) == "bool" for index in found.values()):
        raise UnsupportedError("a mask, which makes a shape that depends on the data")
    return found


def _numbers(s: Scope, indices: Mapping[int, Expr], shape: Sequence[int]) -> Expr:
    """Of the indexed axes in a row, the number of each place."""
    total: Any = None
    for axis, index in indices.items():
        inside = _inside(s, index, shape[axis])
        total = inside if total is None else s.add(s.multiply(total, shape[axis]), inside)
    return total


def _inside(s: Scope, index: Expr, extent: int) -> Expr:
    """Places counted from the end are counted from the front."""
    index = index if dtype(index) == "int64" else s.astype(index, "int64")
    return s.where(s.less(index, 0), s.add(index, extent), index)


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "_unsafe_index.Tensor": _read,
        "index.Tensor": _read,
        "index_put.default": _written,
        "index_select.default": _selected,
    }
)
