"""How expressions depend on a loop's variable: strides, boundaries of conditions, divisions."""

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Any

from tvm import sym, tirx
from tvm.ir.expr import Call, TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_visit, structural_walk

Expr = Any  # tvm.ir.Expr
Var = Any  # tvm.ir.expr.Var

COMPARISONS = (prim.LT, prim.LE, prim.GT, prim.GE, prim.EQ, prim.NE)
DIVISIONS = (prim.FloorDiv, prim.FloorMod, prim.Mod)


def stride(indices: Any, buffer: Any, var: Var) -> int | None:
    """How far apart in `buffer` two neighbouring values of `var` lie; None if that varies."""
    total, scale = 0, 1
    for index, extent in zip(reversed(indices), reversed(buffer.shape), strict=True):
        found = sym.detect_linear_equation(index, [var])
        if not found or not isinstance(found[0], prim.IntImm):
            return None
        if int(found[0]) and not scale:
            return None  # behind an axis of open size
        total += int(found[0]) * scale
        scale *= int(extent) if isinstance(extent, prim.IntImm) else 0
    return total


def aligned(indices: Any, buffer: Any, var: Var, length: int) -> bool:
    """Whether a vector of `length` that begins at a multiple of that along `var` lies at one."""
    whole = tirx.Var("whole", var.ty)
    flat = structural_map(
        distance(indices, buffer),
        (type(var), lambda v: whole * length if v.same_as(var) else v),
    )
    found = sym.Analyzer().modular_set(simplify(flat))
    return int(found.coeff) % length == 0 and int(found.base) % length == 0


def distance(indices: Any, buffer: Any) -> Expr:
    """How far from the first element an access is."""
    flat: Any = 0
    for position, (index, extent) in enumerate(zip(indices, buffer.shape, strict=True)):
        flat = flat * extent + index if position else index  # an open size may be the first
    return flat


def lane_divisor(body: Any, var: Var) -> int:
    """What the lanes over `var` must divide, lest conditions or indices change within a vector.

    0 where nothing restricts them, 1 where only scalar code will do.
    """
    found = 0

    def restrict(node: Any) -> None:
        nonlocal found
        if isinstance(node, DIVISIONS) and uses(node.a, var):
            # What is divided already changes no sooner than the division inside it.
            if uses(node.a, var, divided=False):
                found = gcd(found, _offset(node.a, var), _constant(node.b))
        elif isinstance(node, Call) and conditional(node):
            structural_walk(node.args[0], condition)

    def condition(node: Any) -> None:
        nonlocal found
        if isinstance(node, COMPARISONS) and uses(node, var, divided=False):
            limit = boundary(node, var)
            found = gcd(found, limit.at if limit else 1)

    structural_walk(body, restrict)
    return found


def conditional(call: Any) -> bool:
    """Whether a call evaluates one of two operands only, so that lanes may part ways."""
    return str(call.op.name) == "prim.if_then_else"


def guarded(body: Any) -> tuple[Any, ...]:
    """The loads that are evaluated under a condition only."""
    found: list[Any] = []

    def visit(call: Any) -> None:
        if conditional(call):
            for branch in call.args[1:]:
                structural_walk(branch, (TensorLoad, found.append))

    structural_walk(body, (Call, visit))
    return tuple(found)


@dataclass(frozen=True)
class Boundary:
    """A comparison is `below` for values of a variable under `at`, and the contrary from there."""

    at: int
    below: bool


def boundary(node: Expr, var: Var) -> Boundary | None:
    """Where the comparison `node` changes as `var` grows; None if it is not that simple."""
    if isinstance(node, (prim.EQ, prim.NE)):
        return None
    difference: Any = node.a - node.b
    # Both a <= b and its opposite a > b read "a - b - 1 < 0".
    beyond = 1 if isinstance(node, (prim.LE, prim.GT)) else 0
    linear = [simplify(x) for x in sym.detect_linear_equation(difference - beyond, [var])]
    if not linear or not all(isinstance(part, prim.IntImm) for part in linear):
        return None
    slope, offset = (int(part) for part in linear)
    less = isinstance(node, (prim.LT, prim.LE))
    if slope == 1:
        return Boundary(-offset, less)
    return Boundary(offset + 1, not less) if slope == -1 else None


def comparisons(expr: Expr) -> list[Any]:
    """The comparisons in an expression."""
    found: list[Any] = []
    structural_walk(expr, (COMPARISONS, found.append))
    return found


def decided(expr: Expr, decide: Callable[[Any], Any]) -> Expr:
    """An expression of which some comparisons are known."""

    def fold(node: Any) -> Any:
        if not conditional(node):
            return node
        known = simplify(node.args[0])
        if isinstance(known, prim.IntImm):
            return node.args[1] if int(known) else node.args[2]
        return tirx.if_then_else(known, *node.args[1:])

    return structural_map(expr, [(COMPARISONS, decide), (Call, fold)])


def simplify(expr: Expr) -> Expr:
    """`expr` with its arithmetic done as far as that goes without knowing its variables."""
    return sym.Analyzer().simplify(expr)


def _offset(expr: Expr, var: Var) -> int:
    """The constant behind `var` in a linear expression; 1, which allows no lanes, in any other."""
    linear = sym.detect_linear_equation(expr, [var])
    if not linear or not isinstance(linear[0], prim.IntImm) or abs(int(linear[0])) != 1:
        return 1
    return _constant(linear[1])


def _constant(expr: Expr) -> int:
    value = simplify(expr)
    return abs(int(value)) if isinstance(value, prim.IntImm) else 1


def uses(expr: Expr, var: Var, divided: bool = True) -> bool:
    """Whether `var` occurs in `expr`; unless `divided`, outside of integer divisions."""
    found = False

    def visit(node: Any, _visitor: Any) -> None:
        nonlocal found
        found = found or node.same_as(var)

    def stop(_node: Any, _visitor: Any) -> None:
        """What is divided does not count."""

    callbacks: list[Any] = [(type(var), visit)]
    structural_visit(expr, callbacks if divided else [(DIVISIONS, stop), *callbacks])
    return found
