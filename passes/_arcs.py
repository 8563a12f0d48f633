"""asin, acos and atan of float32 in vector registers.

An arc sine beyond 1/2 is that of half an angle, an arc tangent beyond 1 that of the inverse; what
is left are odd polynomials, fitted as those of `_polynomials`.
"""

import math
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx import Max, Min, Select

from hybridc.passes._float_types import ARGUMENT, let
from hybridc.passes._polynomials import horner, real, whole

Expr = Any  # tvm.ir.Expr

_SIGN = -(2**31)
# (asin(r) - r) / r^3 as a polynomial of r^2 for r <= 1/2: relative error of asin 4.8e-9.
_ASIN = (
    0.16666752099990845,
    0.07495297491550446,
    0.04547037556767464,
    0.02417951636016369,
    0.04216630756855011,
)
# (atan(q) - q) / q^3 as a polynomial of q^2 for q <= 1: relative error of atan 2.6e-9.
_ATAN = (
    -0.33333298563957214,
    0.19998548924922943,
    -0.14264242351055145,
    0.10952185839414597,
    -0.0840344950556755,
    0.05795758217573166,
    -0.031177833676338196,
    0.010914599522948265,
    -0.0017936202930286527,
)


def asin(x: Expr) -> Expr:
    """The arc sine; for |x| > 1/2 it is pi/2 less twice that of sqrt((1 - |x|) / 2)."""

    def of_arc(x: Expr, arc: Expr) -> Expr:
        beyond = real(math.pi / 2) - arc * real(2.0)
        return _signed(Select(_large(x), beyond, arc), x)

    return _by_arc(x, of_arc)


def acos(x: Expr) -> Expr:
    """The arc cosine, by the same arc."""

    def of_arc(x: Expr, arc: Expr) -> Expr:
        beyond = _signed(arc * real(2.0), x) + Select(x < real(0.0), real(math.pi), real(0.0))
        return Select(_large(x), beyond, real(math.pi / 2) - _signed(arc, x))

    return _by_arc(x, of_arc)


def atan(x: Expr) -> Expr:
    """The arc tangent of |x| or its inverse, whichever is less; a NaN passes as second operand."""

    def of_argument(x: Expr) -> Expr:
        size = tirx.abs(x)
        least = Min(real(1.0), size) / Max(real(1.0), size)
        return let("q", least, lambda q: of_arc(x, _odd(q, q * q, _ATAN)))

    def of_arc(x: Expr, arc: Expr) -> Expr:
        inverse = tirx.abs(x) > real(1.0)
        return _signed(let("arc", arc, lambda a: Select(inverse, real(math.pi / 2) - a, a)), x)

    return let(ARGUMENT, x, of_argument)


FUNCTIONS = {"tirx.asin": asin, "tirx.acos": acos, "tirx.atan": atan}


def _by_arc(x: Expr, of_arc: Callable[[Expr, Expr], Expr]) -> Expr:
    """What is made of x and the arc sine of |x|, or of sqrt((1 - |x|) / 2) for |x| > 1/2."""

    def of_argument(x: Expr) -> Expr:
        half = (real(1.0) - tirx.abs(x)) * real(0.5)
        return let("t", Select(_large(x), half, x * x), lambda t: of_square(x, t))

    def of_square(x: Expr, t: Expr) -> Expr:
        root = Select(_large(x), tirx.sqrt(t), tirx.abs(x))
        arc = let("r", root, lambda r: _odd(r, t, _ASIN))
        return let("arc", arc, lambda a: of_arc(x, a))

    return let(ARGUMENT, x, of_argument)


def _large(x: Expr) -> Expr:
    return tirx.abs(x) > real(0.5)


def _odd(r: Expr, square: Expr, coefficients: tuple[float, ...]) -> Expr:
    return let("s", square, lambda s: r * s * horner(coefficients, s)) + r


def _signed(value: Expr, x: Expr) -> Expr:
    """A value that is not negative, with the sign of x."""
    sign = tirx.bitwise_and(tirx.reinterpret("int32", x), whole(_SIGN))
    bits = tirx.bitwise_or(tirx.reinterpret("int32", value), sign)
    return tirx.reinterpret("float32", bits)
