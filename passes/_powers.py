"""Powers x^y of float32 in vector registers: 2^(y log2 |x|), the exponent in float64.

y log2 |x| reaches 150, of which float32 would keep 16 bits behind the point, and the result as
many; in float64 what is lost does not show.  Coefficients are minimax fits, as in `_polynomials`;
the error of each stands beside it, and tests/test_fast_math.py measures what is left.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir.prim.expr import FloatImm
from tvm.tirx import Max, Min, Select

from hybridc.passes._float_types import ARGUMENT, let
from hybridc.passes._polynomials import horner, nan, real, whole

Expr = Any  # tvm.ir.Expr

_MANTISSA_BITS = 23
_SQRT_HALF_BITS = 0x3F3504F3
_INFINITY_BITS = 0x7F800000
_SIGN_BIT = -0x80000000
_SMALLEST_NORMAL = 2.0**-126
# log2((1 + s) / (1 - s)) / s as a polynomial of s^2 for 1/sqrt(2) <= (1 + s) / (1 - s) < sqrt(2):
# relative error 4.4e-12.
_LOG2 = (
    2.8853900817862703,
    0.9617966750482235,
    0.5770833810755357,
    0.41168170531894627,
    0.3405983950961207,
)
# 2^r for |r| <= 1/2: relative error 1.5e-8.
_EXP2 = (
    1.0,
    0.6931471824645996,
    0.24022646248340607,
    0.05550328642129898,
    0.009618489071726799,
    0.0013399957679212093,
    0.00015345784777309746,
)
# Added to a float64 below 2^51, this leaves the nearest integer.
_ROUND = 1.5 * 2.0**52
# 2 to this power is infinite in float32, and to its negative 0.
_LARGEST = 160.0


def power(x: Expr, y: Expr) -> Expr:
    """X to the power of y, with the special cases of C's `pow`."""
    if isinstance(y, FloatImm):
        return let(ARGUMENT, x, lambda x: _constant_power(x, _value(y)))
    if isinstance(x, FloatImm) and 0 < _value(x) < math.inf and _value(x) != 1:
        return let(ARGUMENT, y, lambda y: _exp2(_wide(y) * _real64(math.log2(_value(x)))))
    return let(ARGUMENT, x, lambda x: let("exponent", y, lambda y: _power(x, y)))


def _value(constant: Any) -> float:
    """A constant as float32 has it; TVM keeps what it was made from."""
    return float(np.float32(constant.value))


def _power(x: Expr, y: Expr) -> Expr:
    integer = tirx.floor(y).equal(y)
    half = y * real(0.5)
    odd = tirx.all(integer, tirx.floor(half) != half)
    # A logarithm of 0 times an infinite exponent is no number.
    ones = tirx.all(tirx.abs(x).equal(real(1.0)), tirx.Not(_no_number(y)))
    size = Select(ones, real(1.0), _size(x, y))
    signed = _signed(size, Select(odd, _sign(x), whole(0)))
    nothing = tirx.any(_no_number(x), tirx.all(_finite_below_zero(x), tirx.Not(integer)))
    found = Select(nothing, nan(), signed)
    return Select(tirx.any(y.equal(real(0.0)), x.equal(real(1.0))), real(1.0), found)


def _signed(size: Expr, sign: Expr) -> Expr:
    """A number without a sign with the one that an integer has; used once, since TVM expands it."""
    bits = tirx.bitwise_xor(tirx.reinterpret("int32", size), sign)
    return tirx.reinterpret("float32", bits)


def _constant_power(x: Expr, y: float) -> Expr:
    """X to a power that is known, of which those that take an instruction or two are apart."""
    match y:
        case 0.5:  # that of -0 is 0, and that of -inf is infinite
            return Select(_finite_below_zero(x), nan(), tirx.sqrt(tirx.abs(x)))
        case -1.0:
            return real(1.0) / x
        case -2.0:
            return let("inverse", real(1.0) / x, lambda inverse: inverse * inverse)
        case _:
            pass
    if y == 0 or not math.isfinite(y):
        return _power(x, real(y))
    size = _size(x, real(y))
    if not y.is_integer():
        return Select(tirx.any(_no_number(x), _finite_below_zero(x)), nan(), size)
    return Select(_no_number(x), nan(), _signed(size, _sign(x)) if y % 2 else size)


def _size(x: Expr, y: Expr) -> Expr:
    """The power of |x|."""
    return _exp2(_wide(y) * let("size", tirx.abs(x), _log2))


def _log2(x: Expr) -> Expr:
    """The binary logarithm of x >= 0 in float64: e + log2 m of x = 2^e m, with m about 1."""
    small = x < real(_SMALLEST_NORMAL)
    scaled = Select(small, x * real(2.0**_MANTISSA_BITS), x)
    shift = Select(small, whole(_MANTISSA_BITS), whole(0))

    def of_bits(bits: Expr) -> Expr:
        exponent = tirx.shift_right(bits, whole(_MANTISSA_BITS)) - shift
        mantissa = tirx.bitwise_and(bits, whole(2**_MANTISSA_BITS - 1)) + whole(_SQRT_HALF_BITS)
        about_one = _wide(tirx.reinterpret("float32", mantissa))
        return tirx.Cast("float64", exponent) + let("m", about_one, of_mantissa)

    def of_mantissa(m: Expr) -> Expr:
        return let("s", (m - _real64(1.0)) / (m + _real64(1.0)), of_quotient)

    def of_quotient(s: Expr) -> Expr:
        return s * let("t", s * s, lambda t: _horner64(_LOG2, t))

    found = let("b", tirx.reinterpret("int32", scaled) - whole(_SQRT_HALF_BITS), of_bits)
    found = Select(x < real(math.inf), found, _real64(math.inf))
    return Select(x > real(0.0), found, _real64(-math.inf))


def _exp2(z: Expr) -> Expr:
    """2 to a power given in float64; the exponent in two halves, of which none is subnormal."""

    def of_exponent(z: Expr) -> Expr:
        return let("shifted", z + _real64(_ROUND), lambda shifted: of_shifted(z, shifted))

    def of_shifted(z: Expr, shifted: Expr) -> Expr:
        # The integer stands in the last bits; a difference TVM would take for z, before it rounds.
        integer = tirx.Cast("int32", tirx.reinterpret("int64", shifted))
        return let("k", integer, lambda k: of_parts(z - tirx.Cast("float64", k), k))

    def of_parts(rest: Expr, k: Expr) -> Expr:
        value = let("r", tirx.Cast("float32", rest), lambda r: horner(_EXP2, r))
        return scaled(value, k)

    def scaled(value: Expr, k: Expr) -> Expr:
        half = tirx.shift_right(k, whole(1))
        return value * _power_of_two(half) * _power_of_two(k - half)

    # TVM's minimum takes the second where it is no number.
    clamped = Max(_real64(-_LARGEST), Min(_real64(_LARGEST), z))
    return let("z", clamped, of_exponent)


def _power_of_two(exponent: Expr) -> Expr:
    bits = tirx.shift_left(exponent + whole(127), whole(_MANTISSA_BITS))
    return tirx.reinterpret("float32", bits)


def _sign(x: Expr) -> Expr:
    return tirx.bitwise_and(tirx.reinterpret("int32", x), whole(_SIGN_BIT))


def _no_number(x: Expr) -> Expr:
    """Whether x is NaN; of `x != x` TVM knows the answer."""
    magnitude = tirx.bitwise_and(tirx.reinterpret("int32", x), whole(0x7FFFFFFF))
    return magnitude > whole(_INFINITY_BITS)


def _finite_below_zero(x: Expr) -> Expr:
    return tirx.all(x < real(0.0), x > real(-math.inf))


def _horner64(coefficients: Sequence[float], x: Expr) -> Expr:
    total = _real64(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + _real64(coefficient)
    return total


def _wide(x: Expr) -> Expr:
    return tirx.Cast("float64", x)


def _real64(value: float) -> Expr:
    return tirx.const(value, "float64")
