"""Rectifiers, whose slopes may be 0, infinite or NaN."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.ir.rewrite import constant


def _parametric_rectifier(node: Node) -> Expr | None:
    """Before opset 7 a row of slopes is one for each channel.

    TVM's, which fuses best, lacks scalars and bfloat16, and multiplies zeros too: it is for slopes
    that are known to be finite.
    """
    x, slope, s = node.inputs[0], node.inputs[1], node.scope
    old = node.opset < 7 and len(node.shape(1)) == 1
    known = _held(slope)
    finite = known is not None and bool(np.isfinite(known).all())
    if node.shape() and finite and not old and dtype(x) != "bfloat16":
        return None
    if node.shape() and old:
        slope = s.reshape(slope, [-1, *[1] * (len(node.shape()) - 2)])
    return s.where(s.less(x, 0.0), s.multiply(x, slope), x)


def _leaky(node: Node) -> Expr:
    """With alpha 0 negative infinity times that is NaN, which TVM's selection forgets."""
    x, s = node.inputs[0], node.scope
    if node.get("alpha", 0.01) != 0.0:
        return None
    return s.where(s.less(x, 0.0), s.multiply(x, 0.0), x)


def _thresholded(node: Node) -> Expr:
    """X where it is above alpha, else 0; TVM multiplies, which makes NaN of infinity."""
    x, s = node.inputs[0], node.scope
    return s.where(s.greater(x, node.get("alpha", 1.0)), x, constant(np.array(0.0), dtype(x)))


def _held(value: Expr) -> Any:
    """The array that a constant tensor is, or None."""
    held = getattr(value, "value", None)
    return None if held is None else held.numpy()


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "LeakyRelu": _leaky,
        "PRelu": _parametric_rectifier,
        "ThresholdedRelu": _thresholded,
    }
)
