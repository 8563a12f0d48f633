"""exp, log, tanh and erf of float32 as additions, multiplications and bit operations.

Coefficients are minimax fits (iteratively reweighted least squares, after Lawson, on 4000 Chebyshev
nodes in float64), rounded to float32; the error of each fit is given beside it, and
tests/test_fast_math.py measures what is left of it in float32.
"""

import math
from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.ir.prim import expr as prim
from tvm.tirx import Min, Select

from hybridc.passes._float_types import ARGUMENT, FloatType, let

Expr = Any  # tvm.ir.Expr

# ln 2 in two parts, of which the first has 9 bits.
_LN2_HIGH = 0.693359375
FLOAT32 = FloatType(
    "float32",
    "int32",
    mantissa_bits=23,
    bias=127,
    nan_bits=0x7FC00000,
    ln2=(_LN2_HIGH, math.log(2) - _LN2_HIGH),
    exp_of=(  # relative error 3.1e-9
        2.0,
        2.0,
        0.99999988079071044,
        0.33333042263984680,
        0.083336777985095978,
        0.016737420111894608,
        0.0027629225514829159,
    ),
    exp_range=(-87.6, 88.9),
)
exp, sigmoid = FLOAT32.exp, FLOAT32.sigmoid
horner, real, whole, nan = FLOAT32.horner, FLOAT32.real, FLOAT32.whole, FLOAT32.nan
_MANTISSA_BITS = FLOAT32.mantissa_bits
_LN2_LOW = FLOAT32.ln2[1]
# (log(1 + f) - f + f^2/2) / f^3 for 1/sqrt(2) <= 1 + f < sqrt(2): relative error of log 5.8e-9.
_LOG = (
    0.33333331346511841,
    -0.25000819563865662,
    0.20001226663589478,
    -0.16623356938362122,
    0.14201760292053223,
    -0.13160187005996704,
    0.12761566042900085,
    -0.076344683766365051,
)
_SQRT_HALF_BITS = 0x3F3504F3
_SMALLEST_NORMAL = 2.0**-126
# tanh(x) / x as a quotient of polynomials of x^2 for |x| <= 9.02, where tanh rounds to 1:
# relative error 2.1e-8.
_TANH_LIMIT = 9.02
_TANH_ABOVE = (
    1.0,
    0.13379718363285065,
    0.0034940354526042938,
    2.0583493096637540e-05,
    1.3319088054686290e-08,
)
_TANH_BELOW = (
    1.0,
    0.46713033318519592,
    0.025871075689792633,
    0.00032830942654982209,
    7.7620262572963839e-07,
)
# erf(x) / x likewise for |x| <= 3.93, where erf rounds to 1: relative error 1.9e-8.
_ERF_LIMIT = 3.93
_ERF_ABOVE = (
    1.1283791065216064,
    0.19078116118907928,
    0.052789948880672455,
    0.0037795009557157755,
    0.00028480714536271989,
    2.0420027340151137e-06,
)
_ERF_BELOW = (
    1.0,
    0.50240814685821533,
    0.11425641343414259,
    0.014997217804193497,
    0.0011651883833110332,
    3.8004334783181548e-05,
)
# Factors of an argument, and their inverses, with which no coefficient leaves the normal numbers.
_LEAST_SCALE = 0.05


def log(x: Expr) -> Expr:
    """The natural logarithm e ln 2 + ln m of x = 2^e m, with m about 1."""

    def of_argument(x: Expr) -> Expr:
        # Subnormal numbers are scaled to have a full mantissa.
        small = x < real(_SMALLEST_NORMAL)
        bits = FLOAT32.bits(Select(small, x * real(2.0**_MANTISSA_BITS), x))
        shift = Select(small, whole(_MANTISSA_BITS), whole(0))
        from_root = bits - whole(_SQRT_HALF_BITS)
        return let("b", from_root, lambda b: of_bits(x, b, shift))

    def of_bits(x: Expr, bits: Expr, shift: Expr) -> Expr:
        exponent = tirx.shift_right(bits, whole(_MANTISSA_BITS)) - shift
        mantissa = tirx.bitwise_and(bits, whole(2**_MANTISSA_BITS - 1)) + whole(_SQRT_HALF_BITS)
        power = tirx.Cast("float32", exponent)
        rest = FLOAT32.of_bits(mantissa) - real(1.0)
        body = let("f", rest, lambda f: let("k", power, lambda k: finite(f, k)))
        edge = Select(x == real(0.0), real(-math.inf), nan())
        return Select(x > real(0.0), Select(x < real(math.inf), body, x), edge)

    def finite(f: Expr, k: Expr) -> Expr:
        small = f * f * f * horner(_LOG, f) + k * real(_LN2_LOW)
        return small - f * f * real(0.5) + f + k * real(_LN2_HIGH)

    return let(ARGUMENT, x, of_argument)


def tanh(x: Expr) -> Expr:
    """The hyperbolic tangent as x times a quotient of polynomials of x^2."""
    return _odd_quotient(x, _TANH_LIMIT, _TANH_ABOVE, _TANH_BELOW)


def erf(x: Expr) -> Expr:
    """The error function as x times a quotient of polynomials of x^2."""
    return _odd_quotient(x, _ERF_LIMIT, _ERF_ABOVE, _ERF_BELOW)


def power(x: Expr, exponent: int) -> Expr:
    """X to a whole power from 1 to 4, by multiplication."""

    def multiply(x: Expr) -> Expr:
        square = x * x
        return {1: x, 2: square, 3: square * x, 4: square * square}[exponent]

    return let(ARGUMENT, x, multiply)


def _odd_quotient(x: Expr, limit: float, above: Sequence[float], below: Sequence[float]) -> Expr:
    x, scale = _scaled(x)
    limit /= abs(scale)
    above = [c * scale ** (2 * power + 1) for power, c in enumerate(above)]
    below = [c * scale ** (2 * power) for power, c in enumerate(below)]

    def of_argument(x: Expr) -> Expr:
        square = Min(real(limit * limit), x * x)
        return let("t", square, lambda t: x * horner(above, t) / horner(below, t))

    # Beyond the limit it grows with x, and rounding may carry the last steps below beyond 1.
    return FLOAT32.clamp(let(ARGUMENT, x, of_argument), -1.0, 1.0)


def _scaled(x: Expr) -> tuple[Expr, float]:
    """What a constant multiplies, and the constant, which then goes into coefficients."""
    if isinstance(x, prim.Mul) and isinstance(x.b, prim.FloatImm):
        scale = float(x.b.value)
        if _LEAST_SCALE < abs(scale) < 1 / _LEAST_SCALE:
            return x.a, scale
    return x, 1.0
