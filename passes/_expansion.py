"""How far TVM's analysis expands an expression, which decides how long a kernel compiles.

Its code generator looks at what `Let` binds anew wherever the name stands, and at the condition of
a `Select` many times: as it is, negated, and within the conditions around it.  log(1 + x^2.5) did
not compile within a minute.
"""

from collections.abc import Iterator
from typing import Any

from tvm.tirx import Let, Select, Var

Expr = Any  # tvm.ir.Expr

# By what compilations of 12 pairs and triples of functions took: of 2e6 and less 3 s at most, of
# 5.4e6 5.5 s, of 1.1e7 17 s, of 1.3e7 20 s; four more of 1.2e7 and above did not end in a minute.
_OF_CONDITION = 20
_OPERANDS = ("a", "b", "value", "true_value", "false_value")


def expansion(expr: Expr) -> float:
    """Operators in an expression in which each name stands for what it is bound to."""
    return _count(expr, {})


def _count(expr: Expr, bound: dict[Var, float]) -> float:
    if isinstance(expr, Var):
        return bound.get(expr, 1)
    if isinstance(expr, Let):
        return _count(expr.body, {**bound, expr.var: _count(expr.value, bound)})
    count = sum(_count(operand, bound) for operand in _operands(expr))
    if isinstance(expr, Select):
        count += _OF_CONDITION * _count(expr.condition, bound)
    return 1 + count


def _operands(expr: Expr) -> Iterator[Expr]:
    """Those of arithmetic and calls; indices of what is loaded count for nothing."""
    if hasattr(expr, "args"):
        yield from expr.args
    for name in _OPERANDS:
        operand = getattr(expr, name, None)
        if operand is not None and not isinstance(operand, (int, float)):
            yield operand
