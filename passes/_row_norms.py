"""Layer and RMS norms in pieces, as exporters write those that they have no operator for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from hybridc.compiler.ir.rewrite import Expr, Graph, are_known, constant, operator, shape

op: Any = relax.op


@dataclass(frozen=True)
class _Centred:
    """`x`, or where it is `centred` its difference to the mean over an axis."""

    x: Expr
    centred: bool


def row_norm(value: Expr, graph: Graph) -> Expr | None:
    """`x / sqrt(mean(x^2) + epsilon)` as an RMS norm, of `x - mean(x)` as a layer norm, or None.

    Both are over one axis.
    """
    parts = _quotient(value, graph)
    if parts is None or not isinstance(value.ty.shape, relax.ShapeExpr):
        return None
    numerator, biased = parts
    mean, epsilon = _with_epsilon(biased, graph)
    axis = _axis(mean)
    squared = None if mean is None or axis is None else _squared(mean.args[0], graph)
    if squared is None or axis is None or epsilon is None:
        return None
    above, below = (_centred(each, axis, graph) for each in (numerator, squared))
    if above.centred != below.centred or not above.x.same_as(below.x):
        return None
    extents = shape(value)
    if shape(above.x) != extents or not are_known([extents[axis]]):
        return None
    dtype = str(value.ty.dtype)
    scale = constant(np.ones(extents[axis]), dtype)
    if above.centred:
        shift = constant(np.zeros(extents[axis]), dtype)
        return op.nn.layer_norm(above.x, scale, shift, [axis], epsilon)
    # TVM's kernel reads what it is given wrongly over another axis, or of vectors alone.
    rows = axis == len(extents) - 1 > 0
    return op.nn.rms_norm(above.x, scale, [axis], epsilon) if rows else None


def _quotient(value: Expr, graph: Graph) -> tuple[Expr, Expr] | None:
    """What is divided by the root of what, written as a quotient or as a product."""
    if operator(value) == "divide":
        root = graph.call(value.args[1], "sqrt")
        return None if root is None else (value.args[0], root.args[0])
    for numerator, factor in (value.args, value.args[::-1]):
        if (root := graph.call(factor, "rsqrt")) is not None:
            return numerator, root.args[0]
        inverse = graph.call(factor, "divide")
        if inverse is None or not _is(graph.constant(inverse.args[0]), 1):
            continue
        if (root := graph.call(inverse.args[1], "sqrt")) is not None:
            return numerator, root.args[0]
    return None


def _with_epsilon(biased: Expr, graph: Graph) -> tuple[Expr | None, float | None]:
    """The mean to which a number is added, and the number."""
    addition = graph.call(biased, "add")
    if addition is None:
        return None, None
    for operand, other in (addition.args, addition.args[::-1]):
        mean, number = graph.call(operand, "mean"), graph.constant(other)
        if mean is not None and number is not None and number.size == 1:
            return mean, float(number.item())
    return None, None


def _axis(mean: Expr | None) -> int | None:
    """The one axis that a mean is taken over and keeps."""
    if mean is None or not mean.attrs.keepdims or mean.attrs.axis is None:
        return None
    rank, axes = mean.ty.ndim, list(mean.attrs.axis)
    return int(axes[0]) % rank if len(axes) == 1 and rank > 0 else None


def _squared(expr: Expr, graph: Graph) -> Expr | None:
    """What a square is made of."""
    if (power := graph.call(expr, "power")) is not None:
        return power.args[0] if _is(graph.constant(power.args[1]), 2) else None
    product = graph.call(expr, "multiply")
    if product is None or not product.args[0].same_as(product.args[1]):
        return None
    return product.args[0]


def _centred(expr: Expr, axis: int, graph: Graph) -> _Centred:
    """What a difference to the mean over an axis is made of; anything else is itself."""
    difference = graph.call(expr, "subtract")
    if difference is not None:
        x, mean = difference.args[0], graph.call(difference.args[1], "mean")
        if mean is not None and _axis(mean) == axis and mean.args[0].same_as(x):
            return _Centred(x, centred=True)
    return _Centred(expr, centred=False)


def _is(number: Any, wanted: float) -> bool:
    return number is not None and number.size == 1 and float(number.item()) == wanted
