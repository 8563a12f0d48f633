"""The choices in a value as a tree: each way through them has a value without choices."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Any

import tvm
from tvm import sym, tirx
from tvm.ir.expr import Call, TensorLoad
from tvm_ffi import structural_map, structural_visit, structural_walk

from hybridc.schedules.cuda.product_kernel import substituted
from hybridc.schedules.loops import access
from hybridc.schedules.loops.analysis import Block

# Each way is written out.
_MOST = 32
Expr = Any
Bounds = Mapping[Any, tuple[int, int]]  # where each axis begins and ends


@dataclass(frozen=True, eq=False)
class Way:
    """A value without choices."""

    value: Expr

    @cached_property
    def loads(self) -> list[Any]:
        """What it reads."""
        found: list[Any] = []
        structural_walk(self.value, (TensorLoad, found.append))
        return found

    @property
    def conditions(self) -> list[Expr]:
        """None."""
        return []

    @property
    def count(self) -> int:
        """One way."""
        return 1

    def divisor(self, axis: Any) -> int:
        """What vectors along an axis must divide, lest indices change within one: see `access`."""
        return access.lane_divisor(self.value, axis)


@dataclass(frozen=True, eq=False)
class Choice:
    """A condition and the ways on."""

    condition: Expr
    yes: "Way | Choice"
    no: "Way | Choice"

    @property
    def loads(self) -> list[Any]:
        """What is read on all ways; conditions read for themselves."""
        return [*self.yes.loads, *self.no.loads]

    @property
    def conditions(self) -> list[Expr]:
        """All that is decided."""
        return [self.condition, *self.yes.conditions, *self.no.conditions]

    @property
    def count(self) -> int:
        """How many ways there are."""
        return self.yes.count + self.no.count

    def divisor(self, axis: Any) -> int:
        """As of a way; nor may a condition change within a vector."""
        own = tirx.if_then_else(self.condition, tirx.const(1, "int32"), tirx.const(0, "int32"))
        return gcd(access.lane_divisor(own, axis), self.yes.divisor(axis), self.no.divisor(axis))


def of(block: Block) -> Way | Choice | None:
    """The ways of what a block stores; None where they are too many.

    What is read on a way is told as simply as its conditions allow.
    """
    return _ways(block.body.value, {axis: (0, n) for axis, n in block.axes.items()}, _MOST)


def _ways(value: Expr, bounds: Bounds, most: int) -> Way | Choice | None:
    """The ways of a value where axes are within bounds."""
    if most < 1:
        return None
    choice = _outermost(value)
    if choice is None:
        return Way(_simple(value, bounds))
    condition, first, second = choice.args
    yes = _ways(_chosen(value, choice, first), _within(bounds, condition, True), most - 1)
    if yes is None:
        return None
    rest = _within(bounds, condition, False)
    no = _ways(_chosen(value, choice, second), rest, most - yes.count)
    return None if no is None else Choice(condition, yes, no)


def _within(bounds: Bounds, condition: Expr, holds: bool) -> Bounds:
    """Bounds of axes where a condition holds, or where it does not."""
    if not isinstance(condition, access.COMPARISONS):
        return bounds
    made = dict(bounds)
    for axis, (begin, end) in bounds.items():
        edge = access.boundary(condition, axis) if access.uses(condition, axis) else None
        if edge is not None:
            below = edge.below == holds
            made[axis] = (begin, min(end, edge.at)) if below else (max(begin, edge.at), end)
    return made


def _outermost(value: Expr) -> Any | None:
    """The first choice in an expression; those in indices do not count."""
    found: list[Any] = []

    def call(node: Any, visitor: Any) -> None:
        if access.conditional(node):
            found.append(node)
        elif not found:
            visitor.default_visit(node)

    def load(_node: Any, _visitor: Any) -> None:
        """Stop here."""

    structural_visit(value, [(TensorLoad, load), (Call, call)])
    return found[0] if found else None


def _chosen(value: Expr, choice: Any, way: Expr) -> Expr:
    """A value in which a choice is decided."""
    return structural_map(value, (Call, lambda node: way if node.same_as(choice) else node))


def _simple(value: Expr, bounds: Bounds) -> Expr:
    """A value whose indices are as simple as bounds of axes make them."""
    analyzer = sym.Analyzer()
    single: dict[Any, Expr] = {}
    for axis, (begin, end) in bounds.items():
        first, count = (tirx.const(number, axis.ty.dtype) for number in (begin, end - begin))
        if end - begin == 1:
            single[axis] = first
        elif end > begin:
            analyzer.bind(axis, tvm.ir.Range(first, count))

    def load(node: Any) -> Any:
        indices = [analyzer.simplify(substituted(index, single)) for index in node.indices]
        return tirx.BufferLoad(node.source, indices)

    return structural_map(value, (TensorLoad, load))
