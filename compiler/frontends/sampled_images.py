"""Images sampled where a grid says: a pixel finds its neighbours once.

TVM asks for each neighbour, and for each channel anew, whether it lies inside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import te, tirx

from hybridc.compiler.frontends.onnx.node import Expr, Scope
from hybridc.compiler.ir.rewrite import Extent, are_known

# Channels from which on rows of them fill vectors well enough to be worth two transposes.
LEAST = 8
# As many pixels turn in the time in which one neighbour is looked up by itself: linear and cubic,
# 20 and 72 planes of 65 x 65 take as long either way with a third as many (Emerald Rapids).
_TURNED = 4
# How many neighbours along an axis count.
_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
_CUBIC = -0.75  # Keys' parameter, as in ONNX and torch
# A cubic's neighbours all lie on the border from that many pixels outside on.
_BEYOND = 4


@dataclass(frozen=True)
class Grid:
    """How a grid names pixels of an image of this `size`, and what lies outside of it.

    `mode` is nearest, linear or cubic, `padding` zeros, border or reflection, as in ONNX.  Where
    `spreads_nan`, a place that is no number or infinite gives NaN, as in torch; else nothing.
    """

    size: tuple[int, int]
    aligned: bool
    padding: str
    spreads_nan: bool
    mode: str = "linear"

    @property
    def neighbours(self) -> int:
        """How many pixels count for one of the result."""
        return _TAPS[self.mode] ** 2

    def neighbour(self, grid: Any, at: Sequence[Any]) -> tuple[Expr, Expr, Expr]:
        """Place of a neighbour, whether it is inside, and weight.

        `at` is its number, the batch, and the pixel; inside is None where all are.
        """
        k, n, p = at
        taps = _TAPS[self.mode]
        numbers = (k % taps, k // taps)
        x, y = (self._along(grid[n, p, i], self.size[1 - i], numbers[i]) for i in (0, 1))
        place = y[0] * tirx.const(self.size[1], "int32") + x[0]
        inside = tirx.all(x[1], y[1]) if self.padding == "zeros" else None
        return place, inside, x[2] * y[2]

    def part(self, grid: Any, at: Sequence[Any], number: int) -> Expr:
        """Of a neighbour the place, -1 outside of an image that zeros surround, or the weight."""
        place, inside, weight = self.neighbour(grid, at)
        if number:
            return weight
        return place if inside is None else tirx.Select(inside, place, tirx.const(-1, "int32"))

    def looked_up(self, load: Callable[[Expr], Expr], place: Expr, weight: Expr) -> Expr:
        """What a neighbour adds of which a table tells the place."""
        if self.padding != "zeros":
            return self.pixel(load, (place, None, weight))
        inside = place >= 0
        return self.pixel(
            load, (tirx.Select(inside, place, tirx.const(0, "int32")), inside, weight)
        )

    def pixel(self, load: Callable[[Expr], Expr], neighbour: tuple[Expr, Expr, Expr]) -> Expr:
        """What a neighbour adds: what `load` finds at its place, 0 outside, by its weight."""
        place, inside, weight = neighbour
        found = load(place.astype("int64"))
        # No weight of 0 would do outside: an infinite pixel has none.
        if inside is not None and self.spreads_nan:
            found = tirx.Select(inside, found, _real(0))
        if self.mode != "nearest":
            found *= weight
        if inside is not None and not self.spreads_nan:
            found = tirx.Select(inside, found, _real(0))
        return found

    def _along(self, value: Expr, extent: int, tap: Expr) -> tuple[Expr, Expr, Expr]:
        """Of a neighbour along an axis the index, whether it is inside, and the weight."""
        last, at = _real(extent - 1), self._place(value, extent)
        if self.mode == "nearest":
            own, weight = tirx.nearbyint(at), _real(1)
        else:
            below = tirx.floor(at)
            step = tap.astype("float32") - _real(_TAPS[self.mode] // 2 - 1)
            own, weight = below + step, _weight(self.mode, at - below, step)
        if self.padding == "reflection":
            own = self._reflected(own, extent)
        inside = tirx.all(own >= _real(0), own <= last)
        return _clamped(own, last, _real(0)).astype("int32"), inside, weight

    def _place(self, value: Expr, extent: int) -> Expr:
        """From -1 to 1 to a place between elements, finite where a border says so."""
        if self.aligned:
            at = (value + _real(1)) * _real((extent - 1) / 2)
        else:
            at = ((value + _real(1)) * _real(extent) - _real(1)) * _real(0.5)
        if self.padding != "border":
            return at
        more = _BEYOND if self.mode == "cubic" else 0
        return _clamped(at, _real(extent - 1 + more), _real(-more))

    def _reflected(self, own: Expr, extent: int) -> Expr:
        """Between the first and last element, or from half an element outside of them."""
        low, span = (0.0, extent - 1.0) if self.aligned else (-0.5, float(extent))
        distance = tirx.abs(own - _real(low))
        turns = tirx.floor(distance / _real(span))
        rest = distance - turns * _real(span)
        even = (turns - _real(2) * tirx.floor(turns * _real(0.5))).equal(_real(0))
        return tirx.Select(even, _real(low) + rest, _real(low + span) - rest)


def _weight(mode: str, part: Expr, step: Expr) -> Expr:
    """Of a neighbour `step` elements behind the one below, from which the place is a `part` off."""
    distance = tirx.abs(part - step)
    if mode == "linear":
        return _real(1) - distance
    near = (_real(_CUBIC + 2) * distance - _real(_CUBIC + 3)) * distance * distance + _real(1)
    far = (_real(_CUBIC) * distance - _real(5 * _CUBIC)) * distance + _real(8 * _CUBIC)
    far = far * distance - _real(4 * _CUBIC)
    return tirx.Select(distance <= _real(1), near, far)


def _clamped(value: Expr, last: Expr, first: Expr) -> Expr:
    """A number between the first and the last, the first for NaN."""
    return tirx.Select(value > first, tirx.Select(value < last, value, last), first)


def _real(value: float) -> Expr:
    return tirx.const(value, "float32")


def sampled(s: Scope, x: Expr, grid: Expr, shapes: Sequence[Sequence[Extent]], form: Grid) -> Expr:
    """The image at a grid's places; `shapes` are those of the two."""
    (batch, channels, height, width), (_, *made, _) = shapes
    pixels = s.reshape(grid, [batch, made[0] * made[1], 2])
    if channels >= LEAST and _worth_turning(form, made):
        rows = s.reshape(s.permute_dims(x, [0, 2, 3, 1]), [batch, height * width, channels])
        sums = s.te(_of_rows(form), rows, *_tables(s, pixels, form))
        return s.permute_dims(s.reshape(sums, [batch, *made, channels]), [0, 3, 1, 2])
    planes = s.reshape(x, [batch, channels, height * width])
    if channels == 1 and form.mode != "cubic":
        made_here = s.te(_at_once(form), planes, pixels)
    else:
        made_here = s.te(_of_planes(form), planes, *_tables(s, pixels, form))
    return s.reshape(made_here, [batch, channels, *made])


def _worth_turning(form: Grid, made: Sequence[Extent]) -> bool:
    """Whether there are enough pixels, of enough neighbours each, to turn the whole image for.

    Of 4 x 72 planes of 65 x 31, 35 pixels take 41 us without and 233 us turned.
    """
    if form.mode == "nearest":
        return False
    few = are_known(made) and _TURNED * prod(made) * form.neighbours < prod(form.size)
    return not few


def _tables(s: Scope, pixels: Expr, form: Grid) -> list[Expr]:
    """Of a grid `[batch, pixels, 2]` places and weights of neighbours, `[k, batch, pixels]`."""

    def table(part: int) -> Callable[[Any], Any]:
        def corners(grid: Any) -> Any:
            extents = [tirx.const(form.neighbours, "int64"), *grid.shape[:2]]
            return te.compute(extents, lambda *at: form.part(grid, at, part), name="corners")

        return corners

    parts = (0,) if form.mode == "nearest" else (0, 1)
    return [s.te(table(part), pixels) for part in parts]


def _of_rows(form: Grid) -> Callable[..., Any]:
    """`[batch, pixels, channels]`: rows of the image by their weights."""

    def _sampled(rows: Any, places: Any, weights: Any) -> Any:
        def element(n: Any, p: Any, c: Any) -> Any:
            terms = [
                form.looked_up(lambda at: rows[n, at, c], places[k, n, p], weights[k, n, p])
                for k in range(form.neighbours)
            ]
            return _total(terms)

        extents = [rows.shape[0], places.shape[2], rows.shape[2]]
        return te.compute(extents, element, name="sampled")

    return _sampled


def _of_planes(form: Grid) -> Callable[..., Any]:
    """`[batch, channels, pixels]`: elements of each channel by weights found once for all."""

    def _sampled(planes: Any, places: Any, *weights: Any) -> Any:
        def element(n: Any, c: Any, p: Any) -> Any:
            terms = [
                form.looked_up(
                    lambda at: planes[n, c, at],
                    places[k, n, p],
                    weights[0][k, n, p] if weights else None,
                )
                for k in range(form.neighbours)
            ]
            return _total(terms)

        return te.compute([*planes.shape[:2], places.shape[2]], element, name="sampled")

    return _sampled


def _at_once(form: Grid) -> Callable[..., Any]:
    """`[batch, 1, pixels]`: one pixel after the other, in one kernel."""

    def _sampled(planes: Any, points: Any) -> Any:
        def element(n: Any, c: Any, p: Any) -> Any:
            terms = []
            for k in range(form.neighbours):
                found = form.neighbour(points, (tirx.const(k, "int32"), n, p))
                terms.append(form.pixel(lambda at: planes[n, c, at], found))
            return _total(terms)

        return te.compute([*planes.shape[:2], points.shape[1]], element, name="sampled")

    return _sampled


def _total(terms: Sequence[Expr]) -> Expr:
    total = terms[0]
    for term in terms[1:]:
        total += term
    return total
