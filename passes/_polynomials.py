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
from tvm.tirx import Let, Max, Min, Select

Expr = Any  # tvm.ir.Expr

# The name by which each function binds its argument.
ARGUMENT = "argument"
# Added to a float32 below 2^22, this leaves the nearest integer in the last bits.
_ROUND = 12582912.0  # 1.5 * 2^23
_ROUND_BITS = 0x4B400000
_EXPONENT_BIAS = 127
_MANTISSA_BITS = 23
# ln 2 in two parts: the first has 9 bits, so that its product with an exponent is exact.
_LN2_HIGH = 0.693359375
_LN2_LOW = math.log(2) - _LN2_HIGH
# exp is 0 below and infinite above, in float32.
_EXP_LOW, _EXP_HIGH = -104.0, 89.0
# (exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2: relative error of exp 3.1e-9.
_EXP = (0.49999994039535522, 0.16666521131992340, 0.041668388992547989, 0.0083687100559473038)
_EXP_LAST = 0.0013814612757414579
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


def exp(x: Expr) -> Expr:
    """The exponential 2^n e^r, n = round(x / ln 2) and |r| <= ln(2)/2 (Cody and Waite)."""
    return _let(ARGUMENT, _clamp(x, _EXP_LOW, _EXP_HIGH), _exp_clamped)


def _exp_clamped(x: Expr) -> Expr:
    def rounded(shifted: Expr) -> Expr:
        exponent = tirx.reinterpret("int32", shifted) - _int(_ROUND_BITS)
        return _let("n", exponent, lambda n: _let("r", rest(shifted), lambda r: scaled(r, n)))

    def rest(shifted: Expr) -> Expr:
        whole = shifted - _float(_ROUND)
        return x - whole * _float(_LN2_HIGH) - whole * _float(_LN2_LOW)

    def scaled(r: Expr, n: Expr) -> Expr:
        power = _float(1.0) + (r + r * r * _horner((*_EXP, _EXP_LAST), r))
        # Two factors, as 2^n itself may be too large or too small for a normal number.
        half = tirx.shift_right(n, _int(1))
        return power * _power_of_two(half) * _power_of_two(n - half)

    return _let("z", x * _float(1 / math.log(2)) + _float(_ROUND), rounded)


def log(x: Expr) -> Expr:
    """The natural logarithm e ln 2 + ln m of x = 2^e m, with m about 1."""

    def of_argument(x: Expr) -> Expr:
        # Subnormal numbers are scaled to have a full mantissa.
        small = x < _float(_SMALLEST_NORMAL)
        bits = tirx.reinterpret("int32", Select(small, x * _float(2.0**_MANTISSA_BITS), x))
        shift = Select(small, _int(_MANTISSA_BITS), _int(0))
        from_root = bits - _int(_SQRT_HALF_BITS)
        return _let("b", from_root, lambda b: of_bits(x, b, shift))

    def of_bits(x: Expr, bits: Expr, shift: Expr) -> Expr:
        exponent = tirx.shift_right(bits, _int(_MANTISSA_BITS)) - shift
        mantissa = tirx.bitwise_and(bits, _int(2**_MANTISSA_BITS - 1)) + _int(_SQRT_HALF_BITS)
        power = tirx.Cast("float32", exponent)
        rest = tirx.reinterpret("float32", mantissa) - _float(1.0)
        body = _let("f", rest, lambda f: _let("k", power, lambda k: finite(f, k)))
        edge = Select(x == _float(0.0), _float(-math.inf), _nan())
        return Select(x > _float(0.0), Select(x < _float(math.inf), body, x), edge)

    def finite(f: Expr, k: Expr) -> Expr:
        small = f * f * f * _horner(_LOG, f) + k * _float(_LN2_LOW)
        return small - f * f * _float(0.5) + f + k * _float(_LN2_HIGH)

    return _let(ARGUMENT, x, of_argument)


def tanh(x: Expr) -> Expr:
    """The hyperbolic tangent as x times a quotient of polynomials of x^2."""
    return _odd_quotient(x, _TANH_LIMIT, _TANH_ABOVE, _TANH_BELOW)


def erf(x: Expr) -> Expr:
    """The error function as x times a quotient of polynomials of x^2."""
    return _odd_quotient(x, _ERF_LIMIT, _ERF_ABOVE, _ERF_BELOW)


def sigmoid(x: Expr) -> Expr:
    """The logistic function 1 / (1 + e^-x), for negative x as e^x / (1 + e^x)."""

    def of_argument(x: Expr) -> Expr:
        def of_small(small: Expr) -> Expr:
            return Select(x < _float(0.0), small, _float(1.0)) / (_float(1.0) + small)

        return _let("e", exp(_float(0.0) - tirx.abs(x)), of_small)

    return _let(ARGUMENT, x, of_argument)


def power(x: Expr, exponent: int) -> Expr:
    """X to a whole power from 1 to 4, by multiplication."""

    def multiply(x: Expr) -> Expr:
        square = x * x
        return {1: x, 2: square, 3: square * x, 4: square * square}[exponent]

    return _let(ARGUMENT, x, multiply)


def _odd_quotient(x: Expr, limit: float, above: Sequence[float], below: Sequence[float]) -> Expr:
    def quotient(x: Expr) -> Expr:
        value = _let("t", x * x, lambda t: x * _horner(above, t) / _horner(below, t))
        # Rounding may carry the last steps beyond 1, where no such function goes.
        return _clamp(value, -1.0, 1.0)

    return _let(ARGUMENT, _clamp(x, -limit, limit), quotient)


def _clamp(x: Expr, low: float, high: float) -> Expr:
    return Max(_float(low), Min(_float(high), x))


def _horner(coefficients: Sequence[float], x: Expr) -> Expr:
    """The polynomial with these coefficients, the constant first."""
    total = _float(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + _float(coefficient)
    return total


def _power_of_two(exponent: Expr) -> Expr:
    bits = tirx.shift_left(exponent + _int(_EXPONENT_BIAS), _int(_MANTISSA_BITS))
    return tirx.reinterpret("float32", bits)


def _let(name: str, value: Expr, body: Callable[[Expr], Expr]) -> Expr:
    """Bind a value that the body uses more than once."""
    var = tirx.Var(name, value.ty)
    return Let(var, value, body(var))


def _float(value: float) -> Expr:
    return tirx.const(value, "float32")


def _int(value: int) -> Expr:
    return tirx.const(value, "int32")


def _nan() -> Expr:
    return tirx.reinterpret("float32", _int(0x7FC00000))
