"""Images sampled where a grid says: a pixel finds its four neighbours once.

TVM asks for each neighbour, and for each channel anew, whether it lies inside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from hybridc.compiler.frontends.onnx.node import Expr, Scope
from hybridc.compiler.ir.rewrite import Extent

# Channels from which on rows of them fill vectors well enough to be worth two transposes.
LEAST = 8
_CORNERS = 4


@dataclass(frozen=True)
class Grid:
    """How a grid names pixels of an image of this `size`, and what lies outside of it.

    Where `spreads_nan`, a place that is no number or infinite gives NaN, as in torch; else nothing.
    """

    size: tuple[int, int]
    aligned: bool
    border: bool
    spreads_nan: bool

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
        # What lies outside counts nothing; of a border only a weight of 0 lies there.
        inside = tirx.all(own >= zero, own <= last)
        nothing = tirx.Select(tirx.isnan(part), part, zero) if self.spreads_nan else zero
        return _clamped(own, last).astype("int32"), tirx.Select(inside, weight, nothing)


def _clamped(value: Expr, last: Expr) -> Expr:
    """A number between 0 and the last, 0 for NaN."""
    return tirx.Select(value > _real(0), tirx.Select(value < last, value, last), _real(0))


def _real(value: float) -> Expr:
    return tirx.const(value, "float32")


def by_rows(s: Scope, x: Expr, grid: Expr, shapes: Sequence[Sequence[Extent]], form: Grid) -> Expr:
    """Of many channels whole rows; `shapes` are those of the image and the grid."""
    (batch, channels, height, width), (_, *made, _) = shapes
    pixels = s.reshape(grid, [batch, made[0] * made[1], 2])
    places, weights = (s.te(_table(form, part), pixels) for part in (0, 1))
    rows = s.reshape(s.permute_dims(x, [0, 2, 3, 1]), [batch, height * width, channels])
    sums = s.reshape(s.te(_sampled, rows, places, weights), [batch, *made, channels])
    return s.permute_dims(sums, [0, 3, 1, 2])


def by_pixels(
    s: Scope, x: Expr, grid: Expr, shapes: Sequence[Sequence[Extent]], form: Grid
) -> Expr:
    """Of few channels one pixel after the other, in one kernel."""
    (batch, channels, height, width), (_, *made, _) = shapes
    pixels = s.reshape(grid, [batch, made[0] * made[1], 2])
    planes = s.reshape(x, [batch, channels, height * width])

    def sampled(image: Any, points: Any) -> Any:
        def element(n: Any, c: Any, p: Any) -> Any:
            corners = [form.corner(points, (tirx.const(k, "int32"), n, p)) for k in range(_CORNERS)]
            terms = [image[n, c, place.astype("int64")] * weight for place, weight in corners]
            return terms[0] + terms[1] + terms[2] + terms[3]

        return te.compute([batch, channels, points.shape[1]], element, name="sampled")

    return s.reshape(s.te(sampled, planes, pixels), [batch, channels, *made])


def _table(form: Grid, part: int) -> Callable[[Any], Any]:
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
