"""Slices that are put in the place of what was there."""

from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr, Scope, dtype, static
from hybridc.compiler.ir.rewrite import constant
from hybridc.compiler.model import Array

# The name of an argument that no schema has: the places along each axis at which `src` is written
# to a tensor that may be overwritten, such as a cache.
PLACES = "places"


def _overwritten(c: Call) -> Expr:
    s, x, axis = c.scope, c["self"], c["dim"] % len(c.shape())
    if (rows := _rows(c)) is not None:
        return rows
    size, step = c.shape()[axis], c["step"]
    places = np.arange(size)[slice(c["start"], c["end"], step)]
    if not len(places):
        return x
    source = c["src"] if dtype(c["src"]) == dtype(x) else s.astype(c["src"], dtype(x))
    if step != 1:
        chosen = np.arange(size)
        chosen[places] = size + np.arange(len(places))
        both = s.concat([x, source], axis=axis)
        return s.take(both, constant(chosen, "int64"), axis=axis, mode="clip")
    return _between(s, x, source, axis, (int(places[0]), int(places[-1]) + 1))


def _selected(c: Call) -> Expr:
    """The same of one place along an axis."""
    s, x, axis = c.scope, c["self"], c["dim"] % len(c.shape())
    if (rows := _rows(c)) is not None:
        return rows
    place = c["index"] % c.shape()[axis]
    given = s.expand_dims(s.as_type(c["src"], dtype(x)), axis=[axis])
    return _between(s, x, given, axis, (place, place + 1))


def _between(s: Scope, x: Expr, source: Expr, axis: int, ends: tuple[int, int]) -> Expr:
    """A tensor with another from one place to the next; side by side, as kernels fuse them."""
    around = [(0, ends[0]), (ends[1], static(x)[axis])]
    before, behind = (
        [s.strided_slice(x, [axis], [low], [high])] if low < high else [] for low, high in around
    )
    return s.concat([*before, source, *behind], axis=axis)


def _rows(c: Call) -> Expr | None:
    """Rows written over those of a tensor that keeps its layout, if it may be overwritten.

    A row is what lies behind the last axis of which not all is written.
    """
    places: Sequence[Array] | None = c.arguments.get(PLACES)
    if places is None or dtype(c["self"]) == "bool":
        return None
    s, x, shape = c.scope, c["self"], c.shape()
    partial = [a for a, each in enumerate(places) if len(each) < shape[a]]
    depth = max(partial, default=-1) + 1
    size = prod(shape[depth:])
    if not partial or size == 1 or not all(map(len, places)):
        return None
    steps = [prod(shape[axis + 1 : depth]) for axis in range(depth)]
    apart = [each * step for each, step in zip(places, steps, strict=False)]
    numbers: Any = sum(np.ix_(*apart))
    values = s.reshape(s.as_type(c["src"], dtype(x)), [numbers.size, size])
    flat, at = s.reshape(x, [prod(shape[:depth]), size]), constant(numbers.reshape(-1, 1), "int64")
    return s.reshape(s.scatter_nd(flat, at, values, reduction="update"), list(shape))


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "select_scatter.default": _selected,
        "slice_scatter.default": _overwritten,
    }
)
