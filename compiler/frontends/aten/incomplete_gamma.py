"""The incomplete gamma functions, by a loop for each element, in float64.

Source: Abramowitz and Stegun 6.5.29 (the series, below x = a + 1) and 6.5.31 (the continued
fraction above, evaluated by Lentz' method).
"""

import math
from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import Any

from tvm import tirx

from hybridc.compiler.frontends.aten.binary import operand
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.aten.gamma import LANCZOS
from hybridc.compiler.frontends.aten.kernels import as_result, call
from hybridc.compiler.frontends.onnx.node import Expr

# Both converge within a few times the root of a: enough for a of some thousands.
_STEPS = 600

_KERNEL = """
@T.prim_func(s_tir=True, private=True)
def main(
    a: T.Buffer((many,), "float64"), x: T.Buffer((many,), "float64"),
    y: T.Buffer((many,), "float64"),
):
    T.func_attr({"tirx.noalias": True})
    for place in T.serial(many):
        with T.sblock("incomplete_gamma"):
            b = T.axis.spatial(many, place)
            T.reads(a[b], x[b])
            T.writes(y[b])
            r = T.alloc_buffer((6,), "float64")
            # What is lower, or upper, at first; the other is 1 minus it.
            r[0] = T.exp(a[b] * T.log(x[b]) - x[b] - log_gamma(a[b]))
            if x[b] < a[b] + T.float64(1):
                r[1] = T.float64(1) / a[b]
                r[2] = r[1]
                for step in T.serial(steps):
                    r[1] = r[1] * x[b] / (a[b] + T.Cast("float64", step + 1))
                    r[2] = r[2] + r[1]
                r[3] = r[0] * r[2]
                if upper == 1:
                    r[3] = T.float64(1) - r[3]
            else:
                r[1] = x[b] + T.float64(1) - a[b]
                r[2] = T.float64(1e30)
                r[4] = T.float64(1) / r[1]
                r[3] = r[4]
                for step in T.serial(steps):
                    r[5] = T.Cast("float64", step + 1) * (a[b] - T.Cast("float64", step + 1))
                    r[1] = r[1] + T.float64(2)
                    r[4] = r[5] * r[4] + r[1]
                    if T.abs(r[4]) < T.float64(1e-30):
                        r[4] = T.float64(1e-30)
                    r[2] = r[1] + r[5] / r[2]
                    if T.abs(r[2]) < T.float64(1e-30):
                        r[2] = T.float64(1e-30)
                    r[4] = T.float64(1) / r[4]
                    r[3] = r[3] * r[4] * r[2]
                r[3] = r[0] * r[3]
                if upper == 0:
                    r[3] = T.float64(1) - r[3]
            if x[b] == T.float64(0):
                r[3] = T.float64(upper)
            if a[b] == T.float64(0):
                r[3] = T.float64(1 - upper)
            y[b] = r[3]
            if T.min(a[b], x[b]) < T.float64(0) or T.max(a[b], x[b]) == T.float64(0):
                y[b] = T.float64(nothing)
"""


def _log_gamma(a: Any) -> Any:
    """Lanczos' approximation for a > 0, of which less than 1/2 by gamma(a + 1) / a."""
    total = tirx.const(LANCZOS[0], "float64")
    for index, factor in enumerate(LANCZOS[1:], 1):
        total = total + tirx.const(factor, "float64") / (a + tirx.const(float(index), "float64"))
    t = a + tirx.const(7.5, "float64")
    half = tirx.const(0.5 * math.log(2 * math.pi), "float64")
    # Of gamma(a + 1), so that nothing is divided by a small a before the logarithm.
    return half + (a + 0.5) * tirx.log(t) - t + tirx.log(total) - tirx.log(a)


def _incomplete(upper: int) -> Converter:
    def convert(c: Call) -> Expr:
        s, ((shape, kind), *_) = c.scope, c.results
        many = prod(shape)
        a, x = (
            s.reshape(s.broadcast_to(operand(c, name, "float64"), list(shape)), [many])
            for name in ("self", "other")
        )
        names = {"many": many, "steps": _STEPS, "upper": upper, "log_gamma": _log_gamma}
        results = [((many,), "float64")]
        outputs = call(s, "incomplete_gamma", _KERNEL, [a, x], results, nothing=math.nan, **names)
        return as_result(s, outputs[0], shape, kind)

    return convert


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {"igamma.default": _incomplete(0), "igammac.default": _incomplete(1)}
)
