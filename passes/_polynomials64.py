"""exp, log and the logistic function of float64 in vector registers, as `_polynomials` in float32.

Integers of 64 bits are neither converted to floats nor shifted with their sign, for which AVX2 has
no instructions: an exponent becomes a float as the last bits of one.
"""

import math
from typing import Any

from tvm import tirx
from tvm.tirx import Select

from hybridc.passes._float_types import ARGUMENT, FloatType, let

Expr = Any  # tvm.ir.Expr

FLOAT64 = FloatType(
    "float64",
    "int64",
    mantissa_bits=52,
    bias=1023,
    nan_bits=0x7FF8000000000000,
    ln2=(6.93147180369123816490e-01, 1.90821492927058770002e-10),  # the first has 32 bits
    exp_of=(  # of the Chebyshev series: relative error 1.6e-17
        2.0,
        2.0,
        1.0000000000000002,
        0.33333333333333337,
        0.08333333333324826,
        0.016666666666660123,
        0.0027777777834427433,
        0.00039682539726107235,
        4.960304259190875e-05,
        5.511453691999413e-06,
        5.524017689081949e-07,
        5.020077099102064e-08,
    ),
    exp_range=(-708.5, 709.9),
)
exp, sigmoid = FLOAT64.exp, FLOAT64.sigmoid
_MANTISSA_BITS = FLOAT64.mantissa_bits
_LN2_HIGH, _LN2_LOW = FLOAT64.ln2
_real, _whole = FLOAT64.real, FLOAT64.whole
# (log(1 + f) / s - 2) / s^2 in powers of s^2, s = f / (2 + f), for 1/sqrt(2) <= 1 + f < sqrt(2):
# relative error of log 1.3e-18 (fdlibm, e_log.c).
_LOG = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860510658591e-01,
)
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_ONE_BITS = 0x3FF0000000000000
_TWO_TO_52_BITS = 0x4330000000000000
_SMALLEST_NORMAL = 2.0**-1022


def log(x: Expr) -> Expr:
    """The natural logarithm, as a multiple of ln 2 and that of a number about 1."""

    def of_argument(x: Expr) -> Expr:
        # Subnormal numbers are scaled to have a full mantissa.
        small = x < _real(_SMALLEST_NORMAL)
        bits = FLOAT64.bits(Select(small, x * _real(2.0**_MANTISSA_BITS), x))
        zero = Select(small, _real(2.0**52 + 1023 + _MANTISSA_BITS), _real(2.0**52 + 1023))
        # The exponent of this has its bias of 1023 still, so that no bits stand for less than 0.
        from_root = bits + _whole(_ONE_BITS - _SQRT_HALF_BITS)
        return let("b", from_root, lambda b: of_bits(x, b, zero))

    def of_bits(x: Expr, bits: Expr, zero: Expr) -> Expr:
        biased = tirx.shift_right(tirx.Cast("uint64", bits), tirx.const(_MANTISSA_BITS, "uint64"))
        number = tirx.bitwise_or(biased, tirx.const(_TWO_TO_52_BITS, "uint64"))
        power = FLOAT64.of_bits(number) - zero
        mantissa = tirx.bitwise_and(bits, _whole(2**_MANTISSA_BITS - 1)) + _whole(_SQRT_HALF_BITS)
        rest = FLOAT64.of_bits(mantissa) - _real(1.0)
        body = let("f", rest, lambda f: let("k", power, lambda k: quotient(f, k)))
        edge = Select(x.equal(_real(0.0)), _real(-math.inf), FLOAT64.nan())
        return Select(x > _real(0.0), Select(x < _real(math.inf), body, x), edge)

    def quotient(f: Expr, k: Expr) -> Expr:
        return let("s", f / (f + _real(2.0)), lambda s: finite(f, k, s))

    def finite(f: Expr, k: Expr, s: Expr) -> Expr:
        """What rounds most is added last: log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2))."""
        square = f * f * _real(0.5)
        higher = let("t", s * s, lambda t: t * FLOAT64.horner(_LOG, t))
        small = s * (square + higher) + k * _real(_LN2_LOW)
        return small - square + f + k * _real(_LN2_HIGH)

    return let(ARGUMENT, x, of_argument)
