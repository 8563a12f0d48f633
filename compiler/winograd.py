"""Winograd's minimal filtering: 3x3 convolutions of stride 1 with fewer multiplications.

F(m, r) makes m outputs of a filter of r taps from m + r - 1 products; nested over both image axes
that is (m + r - 1)^2 products for each m x m outputs instead of (m r)^2.  S. Winograd, Arithmetic
Complexity of Computations, 1980; A. Lavin, S. Gray, Fast Algorithms for Convolutional Neural
Networks, 2015.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import te, tirx

from hybridc.compiler.contractions import Conv2d
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.model import Array
from hybridc.compiler.tensor_expressions import (
    computed,
    finished,
    pad2d,
    product_of,
    reduced,
    tensor,
)

Matrix = NDArray[np.float64]

# The points at which the polynomials are multiplied; infinity is one more.  Small integers and
# their inverses keep the transforms' entries, and with them the rounding errors, small.
_POINTS = (
    Fraction(0),
    Fraction(1),
    Fraction(-1),
    Fraction(2),
    Fraction(-2),
    Fraction(1, 2),
    Fraction(-1, 2),
)


@cache
def transforms(outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """The matrices A^T, G, B^T of F(outputs, taps): y = A^T ((G g) * (B^T d)).

    Shapes: `[outputs, tile]`, `[tile, taps]`, `[tile, tile]` with tile = outputs + taps - 1, in
    float64.  Toom-Cook: evaluate at tile - 1 points and at infinity, multiply, interpolate; the
    filter's form is its transpose.
    """
    tile = outputs + taps - 1
    points = _POINTS[: tile - 1]
    lagrange = [_basis(points, i) for i in range(tile - 1)]
    scale = [prod(points[i] - p for p in points if p != points[i]) for i in range(tile - 1)]
    a_t = [[p**i for p in points] + [Fraction(int(i == outputs - 1))] for i in range(outputs)]
    g = [[p**j / s for j in range(taps)] for p, s in zip(points, scale, strict=True)]
    g.append([Fraction(int(j == taps - 1)) for j in range(taps)])
    b_t = [[*coefficients, Fraction(0)] for coefficients in lagrange]
    b_t.append(_polynomial(points))
    return tuple(np.array(m, dtype=np.float64) for m in (a_t, g, b_t))  # type: ignore[return-value]


def transform_filter(weight: Array, outputs: int) -> Array:
    """Transform `[O, 3, 3, I]` into `[tile, tile, O, I]`, in float64 and rounded once."""
    _, g, _ = transforms(outputs, weight.shape[1])
    exact: Array = np.einsum("xi,yj,oijc->xyoc", g, g, weight.astype(np.float64))
    return exact.astype(weight.dtype)


@dataclass(frozen=True)
class _Grid:
    """The tiles of a batch of images, numbered row by row; each makes `side` x `side` outputs."""

    batch: int
    height: int
    width: int
    side: int

    @property
    def count(self) -> int:
        return self.batch * self.height * self.width

    def place(self, tile: Any) -> tuple[Any, Any, Any]:
        """Image, and the first row and column of outputs, of a tile."""
        row = tile // self.width % self.height
        return tile // (self.height * self.width), row * self.side, tile % self.width * self.side

    def tile(self, image: Any, row: Any, column: Any) -> Any:
        """The tile that makes an output."""
        return (image * self.height + row // self.side) * self.width + column // self.side


def conv2d(
    shape: tuple[int, ...], packed: Array, columns: int, conv: Conv2d, dtype: str
) -> PrimFunc:
    """3x3 convolution of x `[N, H, W, C]`; weights `[tile, tile, O / lanes, C, lanes]`.

    Stages: `input_rows` and `input_transform` (B^T d B), `product` (one matrix product for each
    of tile x tile positions), `output_rows` and `output_transform` (A^T m A).
    """
    batch, height, width, channels = shape
    tile, _, blocks, _, lanes = packed.shape
    side = tile - 2
    out_h, out_w = conv.output_size((height, width), (3, 3))
    grid = _Grid(batch, -(-out_h // side), -(-out_w // side), side)
    x = tensor(shape, "x", dtype)
    w = tensor(packed.shape, "weight", dtype)
    data = _transform_input(x, conv, grid)
    k = reduced(channels, "k")
    flops = 2 * batch * out_h * out_w * columns * channels * 9
    product = computed(
        (tile * tile, grid.count, blocks * lanes),
        lambda p, t, o: te.sum(
            data[p // tile, p % tile, t, k] * w[p // tile, p % tile, o // lanes, k, o % lanes],
            axis=k,
        ),
        name="product",
        attrs=product_of("winograd-conv2d", flops),
    )
    stored = computed(
        (tile * tile, grid.count, columns), lambda p, t, o: product[p, t, o], name="stored"
    )
    whole = _transform_output(stored, grid)
    out = computed(
        (batch, out_h, out_w, columns),
        lambda n, h, v, o: whole[h % side, v % side, grid.tile(n, h, v), o],
        name="output",
    )
    return finished([x, w, out])


def _transform_input(x: Any, conv: Conv2d, grid: _Grid) -> Any:
    """B^T d B of every tile: `[tile, tile, tiles, C]`."""
    _, height, width, channels = (int(extent) for extent in x.shape)
    top, left, _, _ = conv.padding
    # As many rows and columns behind the image as the last tiles reach.
    below = grid.height * grid.side + 2 - height - top
    right = grid.width * grid.side + 2 - width - left
    padded = pad2d(x, (top, left, below, right))
    _, _, b_t = transforms(grid.side, 3)
    shape = (grid.side + 2, grid.side + 2, grid.count, channels)

    def pixel(t: Any, i: Any, j: Any, c: Any) -> Any:
        image, row, column = grid.place(t)
        return padded[image, row + i, column + j, c]

    rows = computed(
        shape,
        lambda u, j, t, c: _combination(b_t, u, lambda i: pixel(t, i, j, c)),
        name="input_rows",
    )
    return computed(
        shape,
        lambda u, v, t, c: _combination(b_t, v, lambda j: rows[u, j, t, c]),
        name="input_transform",
    )


def _transform_output(stored: Any, grid: _Grid) -> Any:
    """A^T m A of every tile: `[side, side, tiles, O]`."""
    columns, tile = int(stored.shape[2]), grid.side + 2
    a_t, _, _ = transforms(grid.side, 3)
    rows = computed(
        (grid.side, tile, grid.count, columns),
        lambda r, v, t, o: _combination(a_t, r, lambda u: stored[u * tile + v, t, o]),
        name="output_rows",
    )
    return computed(
        (grid.side, grid.side, grid.count, columns),
        lambda r, s, t, o: _combination(a_t, s, lambda v: rows[r, v, t, o]),
        name="output_transform",
    )


def _combination(matrix: Matrix, row: Any, value: Callable[[int], Any]) -> Any:
    """`sum_j matrix[row, j] * value(j)`, to be folded when the loop over `row` is unrolled."""
    choices = [_weighted_sum(entries, value) for entries in matrix]
    chosen = choices[-1]
    for i in reversed(range(len(choices) - 1)):
        chosen = tirx.Select(row == i, choices[i], chosen)
    return chosen


def _weighted_sum(entries: Matrix, value: Callable[[int], Any]) -> Any:
    total: Any = None
    for j, entry in enumerate(entries.tolist()):
        if entry == 0:
            continue
        term = value(j) if abs(entry) == 1 else value(j) * tirx.const(abs(entry), "float32")
        if total is None:
            total = term if entry > 0 else -term
        else:
            total = total + term if entry > 0 else total - term
    return total


def _basis(points: tuple[Fraction, ...], index: int) -> list[Fraction]:
    """Coefficients, lowest first, of the product of (x - p) over all other points."""
    return _polynomial(tuple(p for i, p in enumerate(points) if i != index))


def _polynomial(roots: tuple[Fraction, ...]) -> list[Fraction]:
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        scaled = [*(-root * c for c in coefficients), Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


# Tiles offered: F(2, 3) and F(4, 3).  F(6, 3) saves little more, and loses a further digit.
_TILES = (2, 4)
# Multiply-adds of one core in a cycle, in elements: two vectors of 256 bits, or one of 512.
_MULTIPLY_ADDS = 16
# Bytes that one core moves in a cycle beyond its L2 cache.
_FAR_BYTES = 8
# A saving below this is within what the model does not know.
_MARGIN = 0.9


def best_tile(shape: tuple[int, ...], columns: int, conv: Conv2d) -> int:
    """Outputs a side of the tile that the analytic model likes best; 0 for direct convolution."""
    costs = {m: winograd_cycles(shape, columns, conv, m) for m in _TILES}
    best = min(costs, key=lambda m: costs[m])
    return best if costs[best] < _MARGIN * direct_cycles(shape, columns, conv) else 0


def direct_cycles(shape: tuple[int, ...], columns: int, conv: Conv2d) -> float:
    """Cycles of one core: multiply-adds at peak, weights fetched once."""
    batch, height, width, channels = shape
    out_h, out_w = conv.output_size((height, width), (3, 3))
    work = batch * out_h * out_w * 9 * channels * columns
    return work / _MULTIPLY_ADDS + 9 * channels * columns * 4 / _FAR_BYTES


def winograd_cycles(shape: tuple[int, ...], columns: int, conv: Conv2d, m: int) -> float:
    """Cycles of one core: products, both transforms, and all that goes through far memory."""
    batch, height, width, channels = shape
    out_h, out_w = conv.output_size((height, width), (3, 3))
    tiles = batch * -(-out_h // m) * -(-out_w // m)
    a_t, _, b_t = transforms(m, 3)
    side = m + 2
    products = side * side * tiles * channels * columns
    inputs = 2 * np.count_nonzero(b_t) * side * tiles * channels
    outputs = np.count_nonzero(a_t) * (side + m) * tiles * columns
    moved = side * side * (2 * tiles * (channels + columns) + channels * columns) * 4
    return float((products + inputs + outputs) / _MULTIPLY_ADDS + moved / _FAR_BYTES)
