"""GridSample by rows of channels: a pixel finds its four neighbours once, for all channels.

TVM finds them anew for each channel, and asks for each neighbour whether it lies inside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tvm import te, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.ir.rewrite import are_known

# Channels from which on rows of them fill vectors well enough to be worth two transposes.
_LEAST = 8
_CORNERS = 4
_LINEAR = ("linear", "bilinear")


@dataclass(frozen=True)
class _Grid:
    """How a grid names pixels of an image of this `size`, and what lies outside of it."""

    size: tuple[int, int]
    aligned: bool
    border: bool

    def corner(self, grid: Any, at: Sequence[Any]) -> tuple[Expr, Expr]:
        """Place and weight of a neighbour, `at` its number, the batch, and the pixel."""
        k, n, p = at
        x, y = (self._along(grid[n, p, i], self.size[1 - i], k // (i + 1) % 2) for i in (0, 1))
        place = y[0] * tirx.const(self.size[1], "int32") + x[0]
        return place, x[1] * y[1]

    def _along(self, value: Expr, extent: int, second: Expr) -> tuple[Expr, Expr]:
        """The index along an axis of the first neighbour or the `second`, and its weight."""
        zero, last = _real(0), _real(extent - 1)
        if self.aligned:
            at = (value + _real(1)) * _real((extent - 1) / 2)
        else:
            at = ((value + _real(1)) * _real(extent) - _real(1)) * _real(0.5)
        if self.border:
            at = _clamped(at, last)
        below = tirx.floor(at)
        part = at - below
        own = below + second.astype("float32")
        weight = tirx.Select(second.equal(0), _real(1) - part, part)
        # What lies outside, and NaN, counts nothing; of a border only a weight of 0 lies there.
        inside = tirx.all(own >= zero, own <= last)
        return _clamped(own, last).astype("int32"), tirx.Select(inside, weight, zero)


def _clamped(value: Expr, last: Expr) -> Expr:
    """A number between 0 and the last, 0 for NaN."""
    return tirx.Select(value > _real(0), tirx.Select(value < last, value, last), _real(0))


def _real(value: float) -> Expr:
    return tirx.const(value, "float32")


def _grid_sample(node: Node) -> Expr:
    """Linear in images of float32, whose batch and whose grid may be open.

    Other forms are left to TVM, which divides by a length of 0.
    """
    x, grid, s = node.inputs[0], node.inputs[1], node.scope
    known = are_known(node.shape()[1:])
    mode, padding = node.get("mode", "linear"), node.get("padding_mode", "zeros")
    if padding == "reflection" and node.get("align_corners", 0) and 1 in node.shape()[2:]:
        raise UnsupportedError("a reflection between the ends of one element")
    takes = mode in _LINEAR and padding in ("zeros", "border") and dtype(x) == "float32"
    if not known or not takes or len(node.shape()) != 4 or dtype(grid) != "float32":
        return None
    batch, channels, height, width = node.shape()
    _, *made, _ = node.shape(1)
    if channels < _LEAST or 0 in (*node.shape(), *made):
        return None
    form = _Grid((height, width), bool(node.get("align_corners", 0)), padding == "border")
    pixels = s.reshape(grid, [batch, made[0] * made[1], 2])
    places, weights = (s.te(_table(form, part), pixels) for part in (0, 1))
    rows = s.reshape(s.permute_dims(x, [0, 2, 3, 1]), [batch, height * width, channels])
    sums = s.reshape(s.te(_sampled, rows, places, weights), [batch, *made, channels])
    return s.permute_dims(sums, [0, 3, 1, 2])


def _table(form: _Grid, part: int) -> Callable[[Any], Any]:
    """Of a grid `[batch, pixels, 2]` the places or weights of neighbours, `[4, batch, pixels]`."""

    def corners(grid: Any) -> Any:
        extents = [tirx.const(_CORNERS, "int64"), *grid.shape[:2]]
        return te.compute(extents, lambda *at: form.corner(grid, at)[part], name="corners")

    return corners


def _sampled(rows: Any, places: Any, weights: Any) -> Any:
    """`[batch, pixels, channels]`: rows of the image by their weights."""

    def element(n: Any, p: Any, c: Any) -> Any:
        terms = [
            rows[n, places[k, n, p].astype("int64"), c] * weights[k, n, p] for k in range(_CORNERS)
        ]
        return terms[0] + terms[1] + terms[2] + terms[3]

    extents = [rows.shape[0], places.shape[2], rows.shape[2]]
    return te.compute(extents, element, name="sampled")


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"GridSample": _grid_sample})
