"""Orthogonal polynomials whose degree is a tensor, by their recurrences of three terms.

Source: Abramowitz and Stegun, table 22.7: p[k + 1] = (a x + b) p[k] - c p[k - 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MappingProxyType

import numpy as np

from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.aten.kernels import as_result, call, wide
from hybridc.compiler.frontends.onnx.node import Expr
from hybridc.compiler.ir.rewrite import constant

# p[k + 1] = ((a + a_k k) x + b + b_k k) / (1 + d k) p[k] - (c + c_k k) / (1 + d k) p[k - 1]
_RECURRENCE = """
@T.prim_func(s_tir=True, private=True)
def main(
    x: T.Buffer((many,), "float64"), degree: T.Buffer((many,), "int64"),
    y: T.Buffer((many,), "float64"),
):
    T.func_attr({"tirx.noalias": True})
    for place in T.serial(many):
        with T.sblock("recurrence"):
            b = T.axis.spatial(many, place)
            T.reads(x[b], degree[b])
            T.writes(y[b])
            p = T.alloc_buffer((3,), "float64")
            p[0] = T.float64(1)
            p[1] = T.float64(slope) * x[b] + T.float64(offset)
            if degree[b] < T.int64(0):
                y[b] = T.float64(0)
            else:
                if degree[b] == T.int64(0):
                    y[b] = T.float64(1)
                else:
                    for step in T.serial(degree[b] - T.int64(1)):
                        p[2] = (
                            (
                                (T.float64(a) + T.float64(a_k) * T.Cast("float64", step + 1)) * x[b]
                                + T.float64(c) + T.float64(c_k) * T.Cast("float64", step + 1)
                            ) * p[1]
                            - (T.float64(e) + T.float64(e_k) * T.Cast("float64", step + 1)) * p[0]
                        ) / (T.float64(1) + T.float64(d) * T.Cast("float64", step + 1))
                        p[0] = p[1]
                        p[1] = p[2]
                    y[b] = p[1]
"""


@dataclass(frozen=True)
class Recurrence:
    """The first polynomial, `slope x + offset`, and how each follows from the two before it.

    p[k+1] = (((a + a_k k) x + c + c_k k) p[k] - (e + e_k k) p[k-1]) / (1 + d k).
    """

    slope: float
    offset: float
    a: float = 2.0
    a_k: float = 0.0
    c: float = 0.0
    c_k: float = 0.0
    e: float = 1.0
    e_k: float = 0.0
    d: float = 0.0


def _shifted(plain: Recurrence) -> Recurrence:
    """The same of 2 x - 1."""
    return Recurrence(2 * plain.slope, plain.offset - plain.slope, 4.0, c=-2.0)


_CHEBYSHEV = {
    "t": Recurrence(1, 0),
    "u": Recurrence(2, 0),
    "v": Recurrence(2, -1),
    "w": Recurrence(2, 1),
}
_RECURRENCES = {
    **{f"chebyshev_polynomial_{kind}": found for kind, found in _CHEBYSHEV.items()},
    **{f"shifted_chebyshev_polynomial_{k}": _shifted(r) for k, r in _CHEBYSHEV.items()},
    "hermite_polynomial_h": Recurrence(2, 0, e=0.0, e_k=2.0),
    "hermite_polynomial_he": Recurrence(1, 0, a=1.0, e=0.0, e_k=1.0),
    "laguerre_polynomial_l": Recurrence(-1, 1, a=-1.0, c=1.0, c_k=2.0, e=0.0, e_k=1.0, d=1.0),
    "legendre_polynomial_p": Recurrence(1, 0, a=1.0, a_k=2.0, e=0.0, e_k=1.0, d=1.0),
}


def _polynomial(recurrence: Recurrence, c: Call) -> Expr:
    s, ((shape, kind), *_) = c.scope, c.results
    x, degree = (_tensor(c, name, kind) for name in ("x", "n"))
    many = prod(shape)
    x = s.reshape(s.broadcast_to(wide(s, x), list(shape)), [many])
    degree = s.reshape(s.broadcast_to(s.astype(degree, "int64"), list(shape)), [many])
    names = vars(recurrence)
    results = [((many,), "float64")]
    outputs = call(s, "polynomial", _RECURRENCE, [x, degree], results, many=many, **names)
    return as_result(s, outputs[0], shape, kind)


def _tensor(c: Call, name: str, kind: str) -> Expr:
    value = c[name]
    return value if hasattr(value, "ty") else constant(np.asarray(value), kind)


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        f"special_{name}.{overload}": partial(_polynomial, recurrence)
        for name, recurrence in _RECURRENCES.items()
        for overload in ("default", "x_scalar", "n_scalar")
    }
)
