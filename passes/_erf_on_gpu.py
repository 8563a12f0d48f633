"""1 + erf on a GPU, as it stands in GELU."""

from typing import Any

from tvm import tirx
from tvm.ir.expr import Call
from tvm.ir.prim.expr import FloatImm, Mul

Expr = Any  # tvm.ir.Expr

# What there is of it, by the factor: its value at infinity, a whole number.
_AT_INFINITY = {0.5: 1, 1.0: 2}


def plus_erf(node: Any) -> Expr:
    """`c + c erf(x)` in float32 by a function of the prelude; any other sum as it is.

    An error of erf counts beside 1 there, not beside erf itself: so erfc(|x|), a power of 2 of one
    polynomial, is enough, and what `erff` does for small x is not needed.
    """
    for shift, term in ((node.a, node.b), (node.b, node.a)):
        factor, inner = _scaled(term)
        wanted = isinstance(shift, FloatImm) and str(node.ty.dtype) == "float32"
        if wanted and factor in _AT_INFINITY and float(shift.value) == factor and _is_erf(inner):
            name = f"hybridc_plus_erf<{_AT_INFINITY[factor]}>"
            return tirx.call_pure_extern("float32", name, inner.args[0])
    return node


def _scaled(term: Expr) -> tuple[float, Expr]:
    """A constant factor of a term, and the rest of it."""
    if isinstance(term, Mul):
        for factor, rest in ((term.a, term.b), (term.b, term.a)):
            if isinstance(factor, FloatImm):
                return float(factor.value), rest
    return 1.0, term


def _is_erf(value: Expr) -> bool:
    return isinstance(value, Call) and str(getattr(value.op, "name", "")) == "tirx.erf"
