"""Types of floats with what their elementary functions share: constants, polynomials and exp.

LLVM calls the C library for such functions, once for each lane of a vector.  What stands here
stays in vector registers.

TVM's `min(a, b)` is `a if a < b else b`: with the argument as `b`, a NaN passes.  Values used more
than once are bound by `Let`.  TVM's code generator expands these bindings again when it analyses
them, so each function uses its argument once, and intermediate values as seldom as possible.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx import Let, Max, Min

Expr = Any  # tvm.ir.Expr

# The name by which each function binds its argument.
ARGUMENT = "argument"


@dataclass(frozen=True)
class FloatType:
    """A type of floats, by its name and that of integers of its width.

    `ln2` is ln 2 in two parts, of which the first has so few bits that its product with an
    exponent is exact.  `exp_of` are coefficients of 2 exp(r) for |r| <= ln(2)/2, and `exp_range`
    is where exp is neither 0 nor infinite.
    """

    name: str
    integer: str
    mantissa_bits: int
    bias: int
    nan_bits: int
    ln2: tuple[float, float]
    exp_of: tuple[float, ...]
    exp_range: tuple[float, float]

    @property
    def rounding(self) -> float:
        """Added to a float below a third of it, this leaves the nearest integer in the last bits.

        Its own last bits are 0: of the mantissa all but the first.
        """
        return 1.5 * 2.0**self.mantissa_bits

    def real(self, value: float) -> Expr:
        """A number of this type."""
        return tirx.const(value, self.name)

    def whole(self, value: int) -> Expr:
        """An integer of the same width."""
        return tirx.const(value, self.integer)

    def nan(self) -> Expr:
        """NaN."""
        return tirx.reinterpret(self.name, self.whole(self.nan_bits))

    def bits(self, x: Expr) -> Expr:
        """The bits of a number, as an integer."""
        return tirx.reinterpret(self.integer, x)

    def of_bits(self, bits: Expr) -> Expr:
        """The number of these bits."""
        return tirx.reinterpret(self.name, bits)

    def clamp(self, x: Expr, low: float, high: float) -> Expr:
        """The nearest number from `low` to `high`; a NaN passes."""
        return Max(self.real(low), Min(self.real(high), x))

    def horner(self, coefficients: Sequence[float], x: Expr) -> Expr:
        """The polynomial with these coefficients, the constant first."""
        total = self.real(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            total = total * x + self.real(coefficient)
        return total

    def exp(self, x: Expr) -> Expr:
        """The exponential 2^n e^r, n = round(x / ln 2) and |r| <= ln(2)/2 (Cody and Waite).

        The polynomial gives 2 e^r and the exponent's bits 2^(n - 1): so the largest n, for the
        largest finite results, needs no second factor, and an exponent whose bits are 0 makes the
        result 0.
        """
        return let(ARGUMENT, self.clamp(x, *self.exp_range), self._exp_clamped)

    def _exp_clamped(self, x: Expr) -> Expr:
        # The bits of 2^(n - 1) are this and n as an exponent.
        added = self.real(self.rounding + self.bias - 1)
        high, low = map(self.real, self.ln2)

        def rounded(shifted: Expr) -> Expr:
            # All bits but those of the exponent are shifted out.
            bits = tirx.shift_left(self.bits(shifted), self.whole(self.mantissa_bits))
            factor = self.of_bits(bits)
            return let("r", rest(shifted), lambda r: self.horner(self.exp_of, r) * factor)

        def rest(shifted: Expr) -> Expr:
            multiple = shifted - added
            return x - multiple * high - multiple * low

        return let("z", x * self.real(1 / math.log(2)) + added, rounded)

    def sigmoid(self, x: Expr) -> Expr:
        """The logistic function 1 / (1 + e^-x)."""
        return self.real(1.0) / (self.real(1.0) + self.exp(self.real(0.0) - x))


def let(name: str, value: Expr, body: Callable[[Expr], Expr]) -> Expr:
    """Bind a value that the body uses more than once."""
    var = tirx.Var(name, value.ty)
    return Let(var, value, body(var))
