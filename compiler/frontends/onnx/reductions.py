"""Reductions of nothing, running products, determinants."""

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType

import numpy as np

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import (
    Converter,
    Expr,
    Node,
    dtype,
    is_float,
    number,
    static,
)
from hybridc.compiler.ir.rewrite import are_known, constant

# Matrices beyond this side would be written out into too many operators.
_LARGEST_MATRIX = 16


def _lowest(kind: str) -> float | int:
    """What the maximum of no numbers is."""
    if kind == "bool":
        return 0
    return -np.inf if "float" in kind else int(np.iinfo(kind).min)


def _highest(kind: str) -> float | int:
    if kind == "bool":
        return 1
    return np.inf if "float" in kind else int(np.iinfo(kind).max)


def _of_nothing(value: Callable[[str], float | int]) -> Converter:
    """A reduction over an axis without elements is known; the others are left to TVM."""

    def convert(node: Node) -> Expr:
        shape, kind = node.shape(), dtype(node.inputs[0])
        if 0 not in shape:
            return None
        rank, keep = len(shape), node.get("keepdims", 1)
        axes = node.get("axes") or node.ints(1, []) or []
        if not axes and node.get("noop_with_empty_axes", 0):
            return node.inputs[0]
        reduced = {axis % rank for axis in axes} or set(range(rank))
        result_shape = [
            1 if a in reduced else n for a, n in enumerate(shape) if keep or a not in reduced
        ]
        if 0 in result_shape:
            return constant(np.zeros(result_shape), kind)
        return constant(np.full(result_shape, value(kind)), kind)

    return convert


def _over_no_axes(function: Callable[[Expr, Expr], Expr]) -> Converter:
    """Without axes and with `noop_with_empty_axes`, as ONNX Runtime: of each element alone.

    Other cases are left to TVM, which then gives the input itself.
    """

    def convert(node: Node) -> Expr:
        axes = node.get("axes") or node.ints(1, []) or []
        if axes or not node.get("noop_with_empty_axes", 0):
            return None
        return function(node.scope, node.inputs[0])

    return convert


def _mean(node: Node) -> Expr:
    """Of no numbers it is NaN; of integers the sum over their count, cut towards zero."""
    x, s = node.inputs[0], node.scope
    if is_float(x):
        return _of_nothing(lambda _: np.nan)(node)
    axes = node.get("axes") or node.ints(1, []) or []
    if not axes and node.get("noop_with_empty_axes", 0):
        return x
    reduced = axes or list(range(len(node.shape())))
    count = prod(node.shape()[axis] for axis in reduced)
    total = s.sum(x, axis=reduced, keepdims=bool(node.get("keepdims", 1)))
    return s.divide(s.astype(total, dtype(x)), count)


def _log_sum_exp(node: Node) -> Expr:
    """Exponentials of differences to the maximum; of infinities TVM's are NaN."""
    x, s = node.inputs[0], node.scope
    if not is_float(x) or 0 in node.shape():
        return _of_nothing(_lowest)(node)
    axes = node.get("axes") or node.ints(1, []) or []
    if not axes and node.get("noop_with_empty_axes", 0):
        return x
    reduced, keep = axes or list(range(len(node.shape()))), bool(node.get("keepdims", 1))
    most = s.max(x, axis=reduced, keepdims=True)
    shift = s.where(s.isinf(most), constant(np.array(0.0), dtype(x)), most)
    total = s.log(s.sum(s.exp(s.subtract(x, shift)), axis=reduced, keepdims=keep))
    return s.add(total, shift if keep else s.squeeze(shift, axis=reduced))


def _cumulative(operator: str, neutral: int) -> Converter:
    """CumSum and CumProd: `exclusive` shifts by one, `reverse` runs from the end."""

    def convert(node: Node) -> Expr:
        x, s = node.inputs[0], node.scope
        axis = int(np.ravel(node.value(1))[0]) % len(node.shape())
        extent, kind = node.shape()[axis], dtype(x)
        x = s.flip(x, axis=axis) if node.get("reverse", 0) else x
        if node.get("exclusive", 0):
            shape = list(node.shape())
            one = constant(np.array(neutral), kind)
            first = s.broadcast_to(one, [*shape[:axis], 1, *shape[axis + 1 :]])
            shifted, inside = s.concat([first, x], axis=axis), not are_known([extent])
            x = s.strided_slice(shifted, [axis], [0], [extent], assume_inbound=inside)
        x = getattr(s, operator)(x, axis=axis, dtype=kind)
        return s.flip(x, axis=axis) if node.get("reverse", 0) else x

    return convert


def _det(node: Node) -> Expr:
    """Gaussian elimination of matrices `[..., n, n]` with the largest pivot of each column."""
    x, s = node.inputs[0], node.scope
    *outer, n, columns = node.shape()
    if n != columns or n > _LARGEST_MATRIX:
        raise UnsupportedError(f"matrices of {n}x{columns}; the most is {_LARGEST_MATRIX} square")
    if not is_float(x):
        raise UnsupportedError(f"elements of {dtype(x)}")
    x = s.reshape(x, [-1, n, n])
    result: Expr = constant(np.ones([static(x)[0]]), dtype(x))
    for size in range(n, 0, -1):
        pivot, x = _eliminated(s, x, size)
        result = s.multiply(result, pivot)
    return s.reshape(result, outer)


def _eliminated(s: Expr, x: Expr, n: int) -> tuple[Expr, Expr]:
    """The signed pivot `[m]` of the first column of `[m, n, n]`, and the matrices that remain."""
    many = static(x)[0]
    column = s.reshape(s.strided_slice(x, [2], [0], [1]), [many, n])
    row = s.argmax(s.abs(column), axis=1, keepdims=True)  # [m, 1]
    pivot = s.reshape(s.gather_elements(column, row, axis=1), [many])
    if n == 1:
        return pivot, x
    # The first row takes the pivot's place, which turns the sign unless it is the pivot's row.
    numbers = constant(np.arange(n)[None, :, None], "int64")
    at = s.reshape(row, [many, 1, 1])
    first = s.strided_slice(x, [1], [0], [1])
    chosen = s.gather_elements(x, s.broadcast_to(at, [many, 1, n]), axis=1)
    swapped = s.where(s.broadcast_to(s.equal(numbers, at), [many, n, n]), first, x)
    below = s.strided_slice(swapped, [1], [1], [n])
    sign = s.where(s.equal(s.reshape(row, [many]), 0), *(number(v, x) for v in (1, -1)))
    safe = s.where(s.equal(pivot, 0.0), number(1, x), pivot)
    lead = s.strided_slice(below, [2], [0], [1])
    factor = s.divide(lead, s.reshape(safe, [many, 1, 1]))
    rest = s.strided_slice(below, [2], [1], [n])
    tail = s.strided_slice(chosen, [2], [1], [n])
    return s.multiply(pivot, sign), s.subtract(rest, s.multiply(factor, tail))


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "CumProd": _cumulative("cumprod", 1),
        "CumSum": _cumulative("cumsum", 0),
        "Det": _det,
        "ReduceL1": _over_no_axes(lambda s, x: s.abs(x)),
        "ReduceL2": _over_no_axes(lambda s, x: s.abs(x)),
        "ReduceLogSum": _over_no_axes(lambda s, x: s.log(x)),
        "ReduceLogSumExp": _log_sum_exp,
        "ReduceMax": _of_nothing(_lowest),
        "ReduceMean": _mean,
        "ReduceMin": _of_nothing(_highest),
        "ReduceSumSquare": _over_no_axes(lambda s, x: s.multiply(x, x)),
    }
)
