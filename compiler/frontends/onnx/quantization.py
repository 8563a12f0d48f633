"""Quantisation in blocks, and of activations by their own range."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import (
    Converter,
    Expr,
    Node,
    dtype,
    static,
)


def _dynamic_quantize(node: Node) -> list[Expr]:
    """Scale and zero point from the range of x and zero; all zeros have the scale 1, not 0."""
    x, s = node.inputs[0], node.scope
    low, high = s.minimum(s.min(x), 0.0), s.maximum(s.max(x), 0.0)
    width = s.subtract(high, low)
    one = s.add(s.multiply(width, 0.0), 1.0)
    scale = s.where(s.equal(width, 0.0), one, s.divide(width, 255.0))
    offset = s.round(s.divide(s.negative(low), scale))
    point = s.astype(s.minimum(s.maximum(offset, 0.0), 255.0), "uint8")
    return [s.quantize(x, scale, point, axis=0, out_dtype="uint8"), scale, point]


def _quantize(node: Node) -> Expr:
    """A scale for each block of an axis; other forms are left to TVM."""
    if not node.get("block_size", 0):
        return None
    x, s = node.inputs[0], node.scope
    point = node.input(2)
    kind = _type(node.get("output_dtype", 0)) or ("uint8" if point is None else dtype(point))
    if kind not in ("int8", "uint8", "int16", "uint16"):
        raise UnsupportedError(f"block_size and elements of {kind}")
    limits = np.iinfo(kind)
    rounded = s.round(s.divide(x, _spread(node, node.inputs[1], x)))
    if point is not None:
        rounded = s.add(rounded, s.astype(_spread(node, point, x), dtype(x)))
    saturated = s.minimum(s.maximum(rounded, float(limits.min)), float(limits.max))
    return s.astype(saturated, kind)


def _dequantize(node: Node) -> Expr:
    """A scale for each block of an axis; other forms are left to TVM."""
    if not node.get("block_size", 0):
        return None
    x, scale, point, s = node.inputs[0], node.inputs[1], node.input(2), node.scope
    kind = _type(node.get("output_dtype", 0)) or dtype(scale)
    if "float" in dtype(x) or dtype(x) == "int32":
        raise UnsupportedError(f"block_size and elements of {dtype(x)}")
    whole = s.astype(x, "int32")
    if point is not None:
        whole = s.subtract(whole, s.astype(_spread(node, point, x), "int32"))
    scaled = s.multiply(s.astype(whole, dtype(scale)), _spread(node, scale, x))
    return scaled if kind == dtype(scale) else s.astype(scaled, kind)


def _spread(node: Node, value: Expr, x: Expr) -> Expr:
    """A value of each block for each of its elements; the last block may be cut."""
    s, shape = node.scope, static(x)
    axis = node.get("axis", 1) % len(shape)
    repeated = s.repeat(value, repeats=node.get("block_size"), axis=axis)
    if static(repeated)[axis] == shape[axis]:
        return repeated
    return s.strided_slice(repeated, [axis], [0], [shape[axis]])


def _type(number: int) -> str:
    import onnx

    return str(onnx.helper.tensor_dtype_to_np_dtype(number)) if number else ""


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "DequantizeLinear": _dequantize,
        "DynamicQuantizeLinear": _dynamic_quantize,
        "QuantizeLinear": _quantize,
    }
)
