"""Elements taken at constant places of an axis, as a few runs of evenly spaced ones.

TVM's loop nest looks every place up, which no vector does, and which nothing is fused with.  A
padding by an edge, a reflection or the other end is three runs, a flip or a slice is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import tvm
from tvm import te, tirx

from hybridc.compiler.ir.rewrite import Expr
from hybridc.compiler.model import Array

Tensor = Any  # tvm.te.Tensor

# Runs that are told apart by comparisons; of more, a table is looked up.
_MOST = 4


@dataclass(frozen=True)
class Run:
    """Results from `begin` on: the first is the element at `place`, each next one `step` behind."""

    begin: int
    place: int
    step: int

    def at(self, index: Expr) -> Expr:
        """Which element is the result at `index`."""
        return _long(self.place) + (index - _long(self.begin)) * _long(self.step)


def take(builder: Any, call: Any) -> Expr:
    """Lower `relax.take` at constant places, if these are few runs inside of the axis."""
    data, places = call.args[0], _places(call)
    runs = [] if places is None else _runs(places, _MOST)
    if places is None or not runs:
        return call.op.get_attr("FLegalize")(builder, call)
    axis = int(call.attrs.axis) % data.ty.ndim

    def kernel(x: Tensor) -> Tensor:
        extents = [*x.shape[:axis], _long(len(places)), *x.shape[axis + 1 :]]
        element = _by_value if axis == len(extents) - 1 else _by_place
        return te.compute(extents, lambda *i: element(x, i, axis, runs), name="taken")

    return builder.call_te(kernel, data, primfunc_name_hint="take")


def _places(call: Any) -> Array | None:
    """The places that a call takes, if they are known, in a row, and inside of the axis."""
    data, indices = call.args
    value: Any = getattr(indices, "value", None)  # of a constant
    if (
        not isinstance(value, tvm.runtime.Tensor)
        or len(value.shape) != 1
        or call.attrs.axis is None
    ):
        return None
    extent, places = data.ty.shape.values[int(call.attrs.axis) % data.ty.ndim], value.numpy()
    known = isinstance(extent, tirx.IntImm) and places.size
    return places if known and places.min() >= 0 and places.max() < int(extent) else None


def _runs(places: Array, most: int) -> list[Run]:
    """The longest runs in their order; none where there would be more than `most`."""
    found: list[Run] = []
    begin = 0
    while begin < len(places):
        if len(found) == most:
            return []
        steps = np.diff(places[begin:].astype(np.int64))
        step = int(steps[0]) if len(steps) else 0
        other = np.flatnonzero(steps != step)
        length = int(other[0]) + 1 if other.size else len(places) - begin
        found.append(Run(begin, int(places[begin]), step))
        begin += length
    return found


def _by_value(x: Tensor, index: Sequence[Any], axis: int, runs: Sequence[Run]) -> Expr:
    """One of several loads, which are neighbours along memory each."""

    def load(run: Run) -> Expr:
        return x(*index[:axis], run.at(index[axis]), *index[axis + 1 :])

    value = load(runs[-1])
    for run, after in reversed(list(pairwise(runs))):
        value = tirx.if_then_else(index[axis] < _long(after.begin), load(run), value)
    return value


def _by_place(x: Tensor, index: Sequence[Any], axis: int, runs: Sequence[Run]) -> Expr:
    """One load, of a row that is found for all its elements."""
    place = runs[-1].at(index[axis])
    for run, after in reversed(list(pairwise(runs))):
        place = tirx.Select(index[axis] < _long(after.begin), run.at(index[axis]), place)
    return x(*index[:axis], place, *index[axis + 1 :])


def _long(value: int) -> Expr:
    return tirx.const(value, "int64")
