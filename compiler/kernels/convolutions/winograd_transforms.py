"""The transforms of Winograd's minimal filtering, in exact arithmetic.

F(m, r) makes m outputs of a filter of r taps from m + r - 1 products; nested over both image axes
that is (m + r - 1)^2 products for each m x m outputs instead of (m r)^2.  S. Winograd, Arithmetic
Complexity of Computations, 1980; A. Lavin, S. Gray, Fast Algorithms for Convolutional Neural
Networks, 2015.

Transforms cost accuracy.  Inputs of unit variance and weights that keep it were convolved with
errors, of the largest output, of 0.3e-6 at 64 channels to 1.1e-6 at 1024 by F(2, 3), and 1.4e-6 to
4.5e-6 by F(4, 3).

F(2, 3) of integers is exact: twice its G is a matrix of integers, like A^T and B^T, so that sums of
bytes fit 16 bits, their products 32, and four times the output is what comes out.
"""

from fractions import Fraction
from functools import cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from hybridc.compiler.model import Array

Matrix = NDArray[np.float64]

# The outputs a side for which integers stay integers, and what both of its G are multiplied by.
INTEGER_SIDE = 2
DOUBLED = 2
_HUGE = 1e36  # sums of nine numbers below it are in float32's range
_LARGEST_BYTE = 255

# The points at which the polynomials are multiplied, by their count; infinity is one more.  Of a
# point and its inverse one enlarges what the other reduces, which keeps rounding errors small, and
# opposite points share half of their sums.
_POINTS = ("0", "1", "-1", "2", "-2", "1/2", "-1/2")
_BALANCED = ("0", "2/3", "-2/3", "3/2", "-3/2")


@cache
def transforms(outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """The matrices A^T, G, B^T of F(outputs, taps): y = A^T ((G g) * (B^T d)).

    Shapes: `[outputs, tile]`, `[tile, taps]`, `[tile, tile]` with tile = outputs + taps - 1, in
    float64.  Toom-Cook: evaluate at tile - 1 points and at infinity, multiply, interpolate; the
    filter's form is its transpose.
    """
    tile = outputs + taps - 1
    chosen = _BALANCED if tile - 1 == len(_BALANCED) else _POINTS[: tile - 1]
    points = tuple(Fraction(point) for point in chosen)
    lagrange = [_basis(points, i) for i in range(tile - 1)]
    scale = [prod(points[i] - p for p in points if p != points[i]) for i in range(tile - 1)]
    a_t = [[p**i for p in points] + [Fraction(int(i == outputs - 1))] for i in range(outputs)]
    g = [[p**j / s for j in range(taps)] for p, s in zip(points, scale, strict=True)]
    g.append([Fraction(int(j == taps - 1)) for j in range(taps)])
    b_t = [[*coefficients, Fraction(0)] for coefficients in lagrange]
    b_t.append(_polynomial(points))
    return np.array(a_t, np.float64), np.array(g, np.float64), np.array(b_t, np.float64)


def transform_filter(weight: Array, outputs: int) -> Array:
    """Transform `[O, 3, 3, ...]` into `[tile, tile, O, ...]`, in float64 and rounded once.

    Integers come out four times as large, exactly, in int16.  Every machine makes the same bits:
    terms are added up in their order, not in that of a library.
    """
    from hybridc.compiler.runtime.tensors import empty  # TVM takes its time

    _, g, _ = transforms(outputs, weight.shape[1])
    integers = np.issubdtype(weight.dtype, np.integer)
    g = DOUBLED * g if integers else g
    dtype = np.dtype(np.int16) if integers else weight.dtype
    made = empty((len(g), len(g), len(weight), *weight.shape[3:]), dtype)
    for index, each in enumerate(weight):
        rows = _combined(g, each.astype(np.float64))
        made[:, :, index] = _combined(g, rows.swapaxes(0, 1)).swapaxes(0, 1)
    return made


def fits_floats(weight: Array) -> bool:
    """Whether sums of the weights are numbers: none is infinite, or nearly so."""
    return bool(np.abs(weight).max(initial=0.0) < _HUGE)


def fits_integers(weight: Array) -> bool:
    """Whether no sum on the way overflows 32 bits, whatever bytes are convolved with `weight`."""
    a_t, _, b_t = transforms(INTEGER_SIDE, weight.shape[1])
    terms = np.abs(b_t).sum(axis=1)
    reach = _LARGEST_BYTE * np.outer(terms, terms)
    transformed = np.abs(transform_filter(weight, INTEGER_SIDE).astype(np.float64)).sum(axis=3)
    products = transformed * reach[:, :, np.newaxis]
    back = np.abs(a_t)
    largest = np.einsum("ru,sv,uvo->rso", back, back, products).max()
    return bool(largest < np.iinfo(np.int32).max)


def _combined(matrix: Matrix, planes: Array) -> Array:
    """`matrix @ planes` over the first axis of the planes, without terms that are zero."""
    made: Array = np.zeros((len(matrix), *planes.shape[1:]))
    for i, j in zip(*np.nonzero(matrix), strict=True):
        made[i] += matrix[i, j] * planes[j]
    return made


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
