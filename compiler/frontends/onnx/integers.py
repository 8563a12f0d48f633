"""Products of integers with zero points, as dynamic quantisation makes them."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import tvm

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, Scope, dtype, static
from hybridc.compiler.model import Array

_BYTES = ("int8", "uint8")
# What takes signed bytes to unsigned ones.
_SHIFT = 128
# Products of bytes whose sum surely fits 32 bits, twice: once more for the corrections.
_DEEPEST = 2**30 // (255 * 128)


def _matmul_integer(node: Node) -> Expr:
    """A product of unsigned bytes by constant signed ones, and what the zero points take from it.

    With a' = a - x and b' = b - y for zero points x and y, the sum of a' b' is that of a b, less
    x times the sum of b, less y times the sum of a, and x y for each term.  All of it is in 32 bits
    and exact.  Other forms are left to TVM.
    """
    a, b, s = node.inputs[0], node.inputs[1], node.scope
    if not isinstance(b, tvm.ir.GenericConst) or {dtype(a), dtype(b)} - set(_BYTES):
        return None
    weights: Array = b.value.numpy()
    if weights.ndim != 2 or len(static(a)) < 2 or len(weights) > _DEEPEST:
        return None
    x = _point(s, node.input(2), _SHIFT if dtype(a) == "int8" else 0, along_rows=True)
    y = _point(s, node.input(3), -_SHIFT if dtype(b) == "uint8" else 0, along_rows=False)
    if dtype(a) == "int8":
        a = s.bitwise_xor(s.astype(a, "uint8"), np.uint8(_SHIFT))
    if weights.dtype == np.uint8:
        weights = (weights.astype(np.int16) - _SHIFT).astype(np.int8)
    total = s.matmul(a, tvm.relax.const(weights), out_dtype="int32")
    if x is not None:
        total = s.subtract(total, s.multiply(x, weights.sum(axis=0, dtype=np.int32)))
    if y is not None:
        row = s.sum(s.astype(a, "int32"), axis=-1, keepdims=True)
        if x is not None:
            row = s.subtract(row, s.multiply(x, len(weights)))
        total = s.subtract(total, s.multiply(row, y))
    return total


def _point(s: Scope, zero: Expr | None, shift: int, *, along_rows: bool) -> Expr | None:
    """A zero point as int32 that broadcasts against the product; None where it is zero."""
    if zero is None:
        return tvm.relax.const(np.int32(shift)) if shift else None
    if isinstance(zero, tvm.ir.GenericConst):
        known = zero.value.numpy().astype(np.int32) + shift
        return tvm.relax.const(_placed(known, along_rows)) if known.any() else None
    point = s.astype(zero, "int32")
    if shift:
        point = s.add(point, shift)
    sizes = static(point)
    if int(np.prod(sizes)) == 1:
        return s.reshape(point, ())
    if len(sizes) == 1 and along_rows:
        return s.expand_dims(point, -1)
    if len(sizes) > 1:
        raise UnsupportedError("a zero point of more than one axis")
    return point


def _placed(point: Array, along_rows: bool) -> Array:
    if point.size == 1:
        return point.reshape(())
    return point[:, np.newaxis] if along_rows and point.ndim == 1 else point


def fits_bytes(weights: Array, point: Array | None) -> Array | None:
    """Weights `[O, I, ...]` less their zero points as int8; None where these hold them not.

    Nor where the sum of one output's products might not fit 32 bits, twice.
    """
    less = np.zeros((), np.int32) if point is None else point.astype(np.int32)
    per_output = less.reshape(-1, *[1] * (weights.ndim - 1)) if less.size > 1 else less.reshape(())
    exact = weights.astype(np.int32) - per_output
    limits = np.iinfo(np.int8)
    fitting = exact.min(initial=0) >= limits.min and exact.max(initial=0) <= limits.max
    if not fitting or weights[0].size > _DEEPEST:
        return None
    return exact.astype(np.int8)


def _conv_integer(node: Node) -> Expr:
    """A convolution of unsigned bytes by signed ones, less the zero point of the image.

    Padding is the zero point.  What is written out before import does not come here: other
    weights, other than two spatial axes, padding that follows from sizes.
    """
    x, s = node.inputs[0], node.scope
    weights = fits_bytes(node.value(1), node.value(3))
    if weights is None or weights.ndim != 4:
        raise UnsupportedError("weights that do not fit int8")
    signed = dtype(x) == "int8"
    point = _point(s, node.input(2), _SHIFT if signed else 0, along_rows=False)
    if signed:
        x = s.bitwise_xor(s.astype(x, "uint8"), np.uint8(_SHIFT))
    x = _padded(s, x, node.get("pads", [0] * 4), point)
    total = s.nn.conv2d(
        x,
        tvm.relax.const(weights),
        strides=node.get("strides", [1, 1]),
        dilation=node.get("dilations", [1, 1]),
        groups=node.get("group", 1),
        out_dtype="int32",
    )
    if point is None:
        return total
    sums = weights.sum(axis=(1, 2, 3), dtype=np.int32).reshape(1, -1, 1, 1)
    return s.subtract(total, s.multiply(point, sums))


def _padded(s: Scope, x: Expr, pads: list[int], point: Expr | None) -> Expr:
    """An image surrounded by its zero point, which may be known only as the model runs."""
    if not any(pads):
        return x
    top, left, bottom, right = pads
    widths = [0, 0, 0, 0, top, bottom, left, right]
    if point is None or isinstance(point, tvm.ir.GenericConst):
        return s.nn.pad(
            x, widths, pad_value=float(point.value.numpy()) if point is not None else 0.0
        )
    *_, height, width = static(x)
    inside = np.zeros((1, 1, top + height + bottom, left + width + right), np.bool_)
    inside[:, :, top : top + height, left : left + width] = True
    around = s.nn.pad(x, widths, pad_value=0.0)
    return s.where(tvm.relax.const(inside), around, s.astype(point, "uint8"))


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {"ConvInteger": _conv_integer, "MatMulInteger": _matmul_integer}
)
