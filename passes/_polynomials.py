"""exp, log, tanh and erf of float32 as additions, multiplications and bit operations.

LLVM calls the C library for these functions, once for each lane of a vector.  What stands here
stays in vector registers.  Coefficients are minimax fits (iteratively reweighted least squares,
after Lawson, on 4000 Chebyshev nodes in float64), rounded to float32; the error of each fit is
given beside it, and tests/test_fast_math.py measures what is left of it in float32.

TVM's `min(a, b)` is `a if a < b else b`: with the argument as `b`, a NaN passes.  Values used more
than once are bound by `Let`.  TVM's code generator expands these bindings again when it analyses
them, so each function uses its argument once, and intermediate values as seldom as possible.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.ir.prim import expr as prim
from tvm.tirx import Let, Max, Min, Select

Expr = Any  # tvm.ir.Expr

# The name by which each function binds its argument.
ARGUMENT = "argument"
# Added to a float32 below 2^22, this leaves the nearest integer in the last bits, of which the
# lowest nine are 0 themselves.
ROUND = 12582912.0  # 1.5 * 2^23, 0x4B400000
_MANTISSA_BITS = 23
# ln 2 in two parts: the first has 9 bits, so that its product with an exponent is exact.
_LN2_HIGH = 0.693359375
_LN2_LOW = math.log(2) - _LN2_HIGH
# The bits of 2^(n - 1) are n + _EXP_BIAS as an exponent: n from -126, which makes 0, to 128.
_EXP_BIAS = 126
_EXP_LOW, _EXP_HIGH = -87.6, 88.9
# 2 exp(r) for |r| <= ln(2)/2: relative error 3.1e-9.
_EXP = (
    2.0,
    2.0,
    0.99999988079071044,
    0.33333042263984680,
    0.083336777985095978,
    0.016737420111894608,
    0.0027629225514829159,
)
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


def exp(x: Expr) -> Expr:
    """The exponential 2^n e^r, n = round(x / ln 2) and |r| <= ln(2)/2 (Cody and Waite).

    The polynomial gives 2 e^r and the exponent's bits 2^(n - 1): so n = 128, for the largest finite
    results, needs no second factor, and an exponent whose bits are 0 makes the result 0.
    """
    return let(ARGUMENT, _clamp(x, _EXP_LOW, _EXP_HIGH), _exp_clamped)


def _exp_clamped(x: Expr) -> Expr:
    def rounded(shifted: Expr) -> Expr:
        # All bits but those of n + _EXP_BIAS are shifted out.
        bits = tirx.shift_left(tirx.reinterpret("int32", shifted), whole(_MANTISSA_BITS))
        factor = tirx.reinterpret("float32", bits)
        return let("r", rest(shifted), lambda r: horner(_EXP, r) * factor)

    def rest(shifted: Expr) -> Expr:
        multiple = shifted - real(ROUND + _EXP_BIAS)
        return x - multiple * real(_LN2_HIGH) - multiple * real(_LN2_LOW)

    return let("z", x * real(1 / math.log(2)) + real(ROUND + _EXP_BIAS), rounded)


def log(x: Expr) -> Expr:
    """The natural logarithm e ln 2 + ln m of x = 2^e m, with m about 1."""

    def of_argument(x: Expr) -> Expr:
        # Subnormal numbers are scaled to have a full mantissa.
        small = x < real(_SMALLEST_NORMAL)
        bits = tirx.reinterpret("int32", Select(small, x * real(2.0**_MANTISSA_BITS), x))
        shift = Select(small, whole(_MANTISSA_BITS), whole(0))
        from_root = bits - whole(_SQRT_HALF_BITS)
        return let("b", from_root, lambda b: of_bits(x, b, shift))

    def of_bits(x: Expr, bits: Expr, shift: Expr) -> Expr:
        exponent = tirx.shift_right(bits, whole(_MANTISSA_BITS)) - shift
        mantissa = tirx.bitwise_and(bits, whole(2**_MANTISSA_BITS - 1)) + whole(_SQRT_HALF_BITS)
        power = tirx.Cast("float32", exponent)
        rest = tirx.reinterpret("float32", mantissa) - real(1.0)
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


def sigmoid(x: Expr) -> Expr:
    """The logistic function 1 / (1 + e^-x)."""
    return real(1.0) / (real(1.0) + exp(real(0.0) - x))


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
    return _clamp(let(ARGUMENT, x, of_argument), -1.0, 1.0)


def _scaled(x: Expr) -> tuple[Expr, float]:
    """What a constant multiplies, and the constant, which then goes into coefficients."""
    if isinstance(x, prim.Mul) and isinstance(x.b, prim.FloatImm):
        scale = float(x.b.value)
        if _LEAST_SCALE < abs(scale) < 1 / _LEAST_SCALE:
            return x.a, scale
    return x, 1.0


def _clamp(x: Expr, low: float, high: float) -> Expr:
    return Max(real(low), Min(real(high), x))


def horner(coefficients: Sequence[float], x: Expr) -> Expr:
    """The polynomial with these coefficients, the constant first."""
    total = real(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + real(coefficient)
    return total


def let(name: str, value: Expr, body: Callable[[Expr], Expr]) -> Expr:
    """Bind a value that the body uses more than once."""
    var = tirx.Var(name, value.ty)
    return Let(var, value, body(var))


def real(value: float) -> Expr:
    """A number of float32."""
    return tirx.const(value, "float32")


def whole(value: int) -> Expr:
    """A number of int32."""
    return tirx.const(value, "int32")


def nan() -> Expr:
    """NaN of float32."""
    return tirx.reinterpret("float32", whole(0x7FC00000))
