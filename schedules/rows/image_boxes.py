"""Which rows of the windows of a row of the output lie inside of the image, and what they add."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from types import MappingProxyType
from typing import Any

from tvm import sym, tirx
from tvm.ir.prim import expr as prim

from hybridc.schedules.loops import access, vector_loops
from hybridc.schedules.rows.moving_windows import Windows

Expr = Any  # tvm.ir.Expr
Var = Any  # tvm.ir.expr.Var

_COMPARE: Mapping[Any, Callable[[int, int], bool]] = MappingProxyType(
    {
        prim.LT: operator.lt,
        prim.LE: operator.le,
        prim.GT: operator.gt,
        prim.GE: operator.ge,
        prim.EQ: operator.eq,
        prim.NE: operator.ne,
    }
)


@dataclass(frozen=True)
class Box:
    """Rows of the output for which the same rows of the window lie inside of the image.

    `ranges` are those of the guarded axes; `parts` the stretches of columns, each with the terms
    that count there.
    """

    ranges: tuple[tuple[int, int], ...]
    parts: tuple[tuple[int, int, tuple[Expr, ...]], ...]

    @property
    def size(self) -> int:
        """The rows in it."""
        return prod(stop - start for start, stop in self.ranges)


def guarded(windows: Windows) -> tuple[Var, ...] | None:
    """The outer axes that comparisons ask about, one each; None if one asks about more."""
    found: list[Var] = []
    for _, _, term in windows.parts():
        for node in access.comparisons(term):
            axes = [axis for axis in windows.outer if access.uses(node, axis)]
            if len(axes) != 1 or _ask(node, axes[0], windows) is None:
                return None
            found += axes
    return tuple(axis for axis in windows.outer if any(axis.same_as(each) for each in found))


def ranged(windows: Windows) -> tuple[Var, ...]:
    """The axes that boxes have ranges of: those asked about, and that which numbers rows."""
    asked = guarded(windows)
    assert asked is not None, "kernels with other guards are refused"
    last = windows.outer[-1:]
    return tuple(a for a in windows.outer if any(a.same_as(each) for each in (*asked, *last)))


def boxes(windows: Windows) -> list[Box]:
    """The rows of the output by what of their windows lies inside of the image."""
    axes = ranged(windows)
    parts = windows.parts()
    ranges = [_ranges(axis, parts, windows) for axis in axes]
    return [
        Box(
            chosen,
            tuple(
                (first, last, _counted(term, axes, chosen, windows)) for first, last, term in parts
            ),
        )
        for chosen in product(*ranges)
    ]


def _ranges(axis: Var, parts: Any, windows: Windows) -> list[tuple[int, int]]:
    """The values of an axis in stretches over which no comparison changes."""
    nodes = [n for _, _, term in parts for n in access.comparisons(term) if access.uses(n, axis)]
    asked = [_asked(node, axis, windows) for node in nodes]
    extent = windows.block.spatial[axis]
    answers = [
        tuple(holds(value, place) for holds in asked for place in windows.places())
        for value in range(extent)
    ]
    cuts = [i for i in range(1, extent) if answers[i] != answers[i - 1]]
    return list(zip([0, *cuts], [*cuts, extent], strict=True))


def _counted(
    term: Expr, axes: Sequence[Var], chosen: Sequence[tuple[int, int]], windows: Windows
) -> tuple[Expr, ...]:
    """The terms of the rows of a window that are not neutral."""
    found: list[Expr] = []
    starts = dict(zip(axes, (start for start, _ in chosen), strict=True))
    for place in windows.places():

        def decide(node: Any, place: Mapping[Var, int] = place) -> Any:
            axis = next(axis for axis in axes if access.uses(node, axis))
            return tirx.const(_asked(node, axis, windows)(starts[axis], place), "bool")

        made = access.decided(term, decide)
        rows = {axis: tirx.const(value, str(axis.ty.dtype)) for axis, value in place.items()}
        known = isinstance(made, prim.FloatImm | prim.IntImm)
        if not known or made.value != windows.neutral.value:
            found.append(vector_loops.substitute(made, rows) if rows else made)
    return tuple(found)


def _asked(node: Any, axis: Var, windows: Windows) -> Callable[[int, Mapping[Var, int]], bool]:
    found = _ask(node, axis, windows)
    assert found is not None, "kernels with other guards are refused"
    return found


def _ask(node: Any, axis: Var, windows: Windows) -> Callable[[int, Mapping[Var, int]], bool] | None:
    """What a comparison says for a value of an axis and a row of the window."""
    rows = list(windows.rows)
    linear = sym.detect_linear_equation(node.a - node.b, [axis, *rows])
    known = [access.simplify(part) for part in linear]
    if not known or not all(isinstance(part, prim.IntImm) for part in known):
        return None
    slope, *slopes, offset = (int(part) for part in known)
    compare = _COMPARE[type(node)]

    def holds(value: int, place: Mapping[Var, int]) -> bool:
        moved = sum(step * place[row] for step, row in zip(slopes, rows, strict=True))
        return bool(compare(slope * value + moved + offset, 0))

    return holds
