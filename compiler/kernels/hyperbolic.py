"""Loop nests for hyperbolic functions, which LLVM lacks.

Each function fits `relax.transform.LegalizeOps`: it takes a block builder and a call, and returns
the expression that takes the call's place.
"""

from collections.abc import Callable
from typing import Any

from tvm import te, tirx

Expr = Any  # tvm.relax.Expr
Tensor = Any  # tvm.te.Tensor


def sinh(builder: Any, call: Any) -> Expr:
    """Lower `relax.sinh` by exponentials.

    Near zero these cancel, so below 1 it is the series up to x^9, which is off by 3e-8 at most.
    """

    def value(x: Any) -> Any:
        square = x * x
        series = tirx.const(1.0, x.dtype)
        for factor in (72.0, 42.0, 20.0, 6.0):
            series = 1.0 + square / tirx.const(factor, x.dtype) * series
        return tirx.if_then_else(tirx.abs(x) < 1.0, x * series, _half_exponentials(x, -1.0))

    return _elementwise(builder, call, value)


def cosh(builder: Any, call: Any) -> Expr:
    """Lower `relax.cosh` by exponentials."""
    return _elementwise(builder, call, lambda x: _half_exponentials(x, 1.0))


def atanh(builder: Any, call: Any) -> Expr:
    """Lower `relax.atanh` by a logarithm, `ln((1 + x) / (1 - x)) / 2`.

    Near zero it loses what x adds to 1, so below a quarter it is the series, of which the next term
    is less than half an ULP.
    """

    def value(x: Any) -> Any:
        square = x * x
        series = tirx.const(0.0, x.dtype)
        for power in range(25 if str(x.dtype) == "float64" else 11, 0, -2):
            series = tirx.const(1 / power, x.dtype) + square * series
        logarithm = tirx.const(0.5, x.dtype) * tirx.log((1.0 + x) / (1.0 - x))
        return tirx.if_then_else(tirx.abs(x) < 0.25, x * series, logarithm)

    return _elementwise(builder, call, value)


def _half_exponentials(x: Any, sign: float) -> Any:
    """Half of e^x and of e^-x; by roots, as e^x alone overflows before half of it does."""
    half = tirx.const(0.5, x.dtype)
    rising, falling = tirx.exp(x * half), tirx.exp(-x * half)
    return half * rising * rising + tirx.const(sign, x.dtype) * half * falling * falling


def _elementwise(builder: Any, call: Any, value: Callable[[Any], Any]) -> Expr:
    name = str(call.op.name).removeprefix("relax.")

    def compute(x: Tensor) -> Tensor:
        return te.compute(x.shape, lambda *index: value(x[index]), name=name)

    return builder.call_te(compute, call.args[0], primfunc_name_hint=name)
