"""Einsum as matrix products, which the rest of the compiler knows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from types import MappingProxyType

import numpy as np
from tvm import relax, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, Scope, dtype
from hybridc.compiler.ir.rewrite import Extent, are_known, constant

# Products of other types are left to TVM's sums.
_TYPES = {"float32", "float16", "bfloat16"}
# What an open axis counts for in the order of products.
_OPEN = 64
_Term = tuple[Expr, str]  # an operand and its axes


def _einsum(node: Node) -> Expr:
    """Operands are multiplied two at a time, in the order that costs least.

    Of each two, axes are those of both and the result, of one and the result, or summed over.
    TVM's sums of nothing are whatever is in memory.
    """
    if any(map(_is_empty, node.inputs)):
        return _of_nothing(node)
    terms = _terms(node.get("equation", ""))
    if terms is None or len(node.inputs) != len(terms) - 1 or dtype(node.inputs[0]) not in _TYPES:
        return None
    extents = _extents(node, terms[:-1])
    if extents is None or not all(axis in extents for axis in terms[-1]):
        return None
    *left, result = terms
    known = [*zip(node.inputs, left, strict=True)]
    for pair in _path(left, result, extents):
        second, first = (known.pop(place) for place in reversed(pair))
        kept = _kept(first[1], second[1], [*(term for _, term in known), result])
        made = _Pair(node.scope, extents).product(first, second, kept if known else result)
        if made is None:
            return None
        known.append((made, kept))
    return known[0][0]


def _path(
    terms: Sequence[str], result: str, extents: Mapping[str, Extent]
) -> Iterator[tuple[int, int]]:
    """Which two operands to multiply next, those first whose product takes the fewest steps.

    Each pair's result stands behind the operands that are left.
    """
    sizes = {axis: int(n) if are_known([n]) else _OPEN for axis, n in extents.items()}
    left = [*terms]
    while len(left) > 1:
        pairs = combinations(range(len(left)), 2)
        a, b = min(pairs, key=lambda pair: prod(sizes[x] for x in {*left[pair[0]], *left[pair[1]]}))
        yield a, b
        of_b, of_a = left.pop(b), left.pop(a)
        left.append(_kept(of_a, of_b, [*left, result]))


def _kept(left: str, right: str, others: Sequence[str]) -> str:
    """The axes of a product of two operands that others have."""
    return "".join(dict.fromkeys(axis for axis in left + right if axis in "".join(others)))


@dataclass(frozen=True)
class _Pair:
    """The products of two operands whose axes have these extents."""

    scope: Scope
    extents: Mapping[str, Extent]

    def product(self, left: _Term, right: _Term, result: str) -> Expr | None:
        """One product; None where there is none to be made of it."""
        (a, of_a), (b, of_b) = left, right
        shared = [axis for axis in of_a if axis in of_b]
        summed = [axis for axis in shared if axis not in result]
        batch = [axis for axis in shared if axis in result]
        rows, columns = ([x for x in term if x not in shared] for term in (of_a, of_b))
        if {*batch, *rows, *columns} != {*result}:
            return None
        if not summed:
            return self.by_elements(left, right, result)
        if not rows and (apart := _apart(of_b, batch, summed)):
            rows_alone = self.laid_out(left, batch, (), summed)
            ones = [self.extents[axis] for axis in batch] + [1] * len(apart)
            a = self.scope.reshape(rows_alone, [*ones, 1, self.count(summed)])
            batch, columns = [*batch, *apart], [x for x in columns if x not in apart]
        else:
            a = self.laid_out(left, batch, rows, summed)
        b = self.laid_out(right, batch, summed, columns)
        axes = (*batch, *rows, *columns)
        whole = self.scope.reshape(self.scope.matmul(a, b), [self.extents[x] for x in axes])
        return self.turned(whole, axes, result)

    def by_elements(self, left: _Term, right: _Term, result: str) -> Expr:
        """The product of what shares its axes, or lacks them."""
        spread = [
            self.scope.reshape(
                self.turned(value, term, [axis for axis in result if axis in term]),
                [self.extents[axis] if axis in term else 1 for axis in result],
            )
            for value, term in (left, right)
        ]
        return self.scope.multiply(*spread)

    def laid_out(
        self, operand: _Term, batch: Sequence[str], first: Sequence[str], last: Sequence[str]
    ) -> Expr:
        """The operand as matrices, with these axes for rows and columns."""
        value, term = operand
        moved = self.turned(value, term, (*batch, *first, *last))
        outer = [self.extents[axis] for axis in batch]
        return self.scope.reshape(moved, [*outer, self.count(first), self.count(last)])

    def turned(self, value: Expr, axes: Sequence[str], order: Sequence[str]) -> Expr:
        """The value with its axes in another order."""
        places = [axes.index(axis) for axis in order]
        return value if places == sorted(places) else self.scope.permute_dims(value, places)

    def count(self, axes: Sequence[str]) -> Extent:
        """The elements along some axes."""
        return prod(self.extents[axis] for axis in axes)


def _apart(right: str, batch: Sequence[str], summed: Sequence[str]) -> list[str]:
    """Axes of the result that stand before those summed over, where others stand behind them.

    The matrices that those axes number are multiplied as they lie; as columns of a single one they
    would have to be transposed.
    """
    before = [x for x in right[: right.index(summed[0])] if x not in batch]
    behind = [x for x in right if x not in (*batch, *before, *summed)]
    return before if behind and right == "".join((*batch, *before, *summed, *behind)) else []


def _is_empty(operand: Expr) -> bool:
    return isinstance(operand.ty.shape, relax.ShapeExpr) and any(
        isinstance(extent, tirx.IntImm) and int(extent) == 0 for extent in operand.ty.shape.values
    )


def _of_nothing(node: Node) -> Expr:
    """Zeros, as many as there are."""
    zeros = [np.broadcast_to(np.zeros((), np.int8), node.shape(i)) for i in range(len(node.inputs))]
    return constant(np.einsum(node.get("equation", ""), *zeros), dtype(node.inputs[0]))


def _terms(equation: str) -> list[str] | None:
    """The axes of the operands and the result; None where an axis is repeated or left out."""
    operands, arrow, result = equation.replace(" ", "").partition("->")
    terms = [*operands.split(","), result]
    plain = all(term.isalpha() and len({*term}) == len(term) for term in terms[:-1])
    if not arrow or len(terms) < 3 or not plain or len({*result}) != len(result):
        return None
    return terms


def _extents(node: Node, terms: Sequence[str]) -> dict[str, int] | None:
    """The length of each axis; None where it is unknown, zero, or not the same in all operands."""
    found: dict[str, int] = {}
    try:
        shapes = [node.shape(i) for i in range(len(terms))]
    except UnsupportedError:
        return None
    for term, shape in zip(terms, shapes, strict=True):
        if len(term) != len(shape):
            return None
        for axis, extent in zip(term, shape, strict=True):
            if found.setdefault(axis, extent) != extent or (are_known([extent]) and not extent):
                return None
    return found


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"Einsum": _einsum})
