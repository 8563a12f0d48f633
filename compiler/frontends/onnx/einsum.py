"""Einsum of two operands as a matrix product, which the rest of the compiler knows."""

from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType

import numpy as np
from tvm import relax, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.ir.rewrite import are_known, constant

# Products of other types are left to TVM's sums.
_TYPES = {"float32", "float16", "bfloat16"}


def _einsum(node: Node) -> Expr:
    """Axes are those of both and the result, of one and the result, or summed over in both.

    TVM's sums of nothing are whatever is in memory.
    """
    if any(map(_is_empty, node.inputs)):
        return _of_nothing(node)
    terms = _terms(node.get("equation", ""))
    if terms is None or len(node.inputs) != len(terms) - 1 or dtype(node.inputs[0]) not in _TYPES:
        return None
    left, right, result = terms
    extents = _extents(node, (left, right))
    shared = [axis for axis in left if axis in right]
    summed = [axis for axis in shared if axis not in result]
    batch = [axis for axis in shared if axis in result]
    rows, columns = ([x for x in term if x not in shared] for term in (left, right))
    if extents is None or not summed or {*batch, *rows, *columns} != {*result}:
        return None
    s = node.scope

    def laid_out(operand: Expr, subscripts: str, first: Sequence[str], last: Sequence[str]) -> Expr:
        order = [subscripts.index(axis) for axis in (*batch, *first, *last)]
        moved = operand if order == sorted(order) else s.permute_dims(operand, order)
        sizes = [prod(extents[axis] for axis in axes) for axes in (first, last)]
        return s.reshape(moved, [*(extents[axis] for axis in batch), *sizes])

    a = laid_out(node.inputs[0], left, rows, summed)
    b = laid_out(node.inputs[1], right, summed, columns)
    product_axes = (*batch, *rows, *columns)
    product = s.reshape(s.matmul(a, b), [extents[axis] for axis in product_axes])
    order = [product_axes.index(axis) for axis in result]
    return product if order == sorted(order) else s.permute_dims(product, order)


def _is_empty(operand: Expr) -> bool:
    return isinstance(operand.ty.shape, relax.ShapeExpr) and any(
        isinstance(extent, tirx.IntImm) and int(extent) == 0 for extent in operand.ty.shape.values
    )


def _of_nothing(node: Node) -> Expr:
    """Zeros, as many as there are."""
    zeros = [np.broadcast_to(np.zeros((), np.int8), node.shape(i)) for i in range(len(node.inputs))]
    return constant(np.einsum(node.get("equation", ""), *zeros), dtype(node.inputs[0]))


def _terms(equation: str) -> tuple[str, str, str] | None:
    """The axes of two operands and the result; None where an axis is repeated or left out."""
    operands, arrow, result = equation.replace(" ", "").partition("->")
    terms = [*operands.split(","), result]
    plain = all(term.isalpha() and len({*term}) == len(term) for term in terms[:-1])
    if not arrow or len(terms) != 3 or not plain or len({*result}) != len(result):
        return None
    return terms[0], terms[1], terms[2]


def _extents(node: Node, terms: Sequence[str]) -> dict[str, int] | None:
    """The length of each axis; None where it is unknown, zero, or not the same in both operands."""
    found: dict[str, int] = {}
    try:
        shapes = [node.shape(i) for i in range(len(terms))]
    except UnsupportedError:
        return None
    for term, shape in zip(terms, shapes, strict=True):
        for axis, extent in zip(term, shape, strict=True):
            if found.setdefault(axis, extent) != extent or (are_known([extent]) and not extent):
                return None
    return found


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"Einsum": _einsum})
