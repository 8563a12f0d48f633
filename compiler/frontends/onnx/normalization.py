"""Norms with statistics of their own, and those that TVM lacks."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.ir.rewrite import constant

_WIDE, _STASHED_WIDE = "float32", 1


def _layer_norm(node: Node) -> list[Expr] | None:
    """A norm whose mean or inverse deviation is wanted; without these TVM does it.

    The body that ONNX has for it takes the square of the mean from the mean of squares.  What that
    rounds to may be larger than a small variance, and less than 0.
    """
    if not (node.named(1) or node.named(2)):
        return None
    if node.get("stash_type", _STASHED_WIDE) != _STASHED_WIDE:
        raise UnsupportedError(f"stash_type={node.get('stash_type')} and statistics")
    x, s = node.inputs[0], node.scope
    rank = len(node.shape())
    axes = list(range(node.get("axis", -1) % rank, rank))
    wide = s.as_type(x, _WIDE)
    mean = s.mean(wide, axis=axes, keepdims=True)
    centred = s.subtract(wide, mean)
    variance = s.mean(s.multiply(centred, centred), axis=axes, keepdims=True)
    inverse = s.divide(1.0, s.sqrt(s.add(variance, node.get("epsilon", 1e-5))))
    y = s.multiply(s.as_type(s.multiply(centred, inverse), dtype(x)), node.inputs[1])
    bias = node.input(2)
    y = y if bias is None else s.add(y, bias)
    return [y, mean, inverse][: node.outputs]


def _lp_normalization(node: Node) -> Expr:
    """Divide by the norm; where that is 0 the result is 0."""
    x, s, p = node.inputs[0], node.scope, node.get("p", 2)
    axis = [node.get("axis", -1)]
    if p == 1:
        norm = s.sum(s.abs(x), axis=axis, keepdims=True)
    else:
        norm = s.sqrt(s.sum(s.multiply(x, x), axis=axis, keepdims=True))
    none = s.equal(norm, 0.0)
    quotient = s.divide(x, s.where(none, constant(np.array(1.0), dtype(x)), norm))
    return s.where(none, constant(np.array(0.0), dtype(x)), quotient)


def _mean_variance(node: Node) -> Expr:
    """Zero mean and unit variance.

    ONNX's own definition takes the square of the mean from the mean of squares, which may round to
    less than 0, where values are nearly the same.
    """
    x, s = node.inputs[0], node.scope
    options = {"axis": node.get("axes", [0, 2, 3]), "keepdims": True}
    centred = s.subtract(x, s.mean(x, **options))
    deviation = s.sqrt(s.mean(s.multiply(centred, centred), **options))
    return s.divide(centred, s.add(deviation, 1e-9))


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "LayerNormalization": _layer_norm,
        "LpNormalization": _lp_normalization,
        "MeanVarianceNormalization": _mean_variance,
    }
)
