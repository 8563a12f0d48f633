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


def _point(s: Scope, given: Expr | None, shift: int, *, along_rows: bool) -> Expr | None:
    """A zero point as int32 that broadcasts against the product; None where it is zero."""
    if given is None:
        return tvm.relax.const(np.int32(shift)) if shift else None
    if isinstance(given, tvm.ir.GenericConst):
        known = given.value.numpy().astype(np.int32) + shift
        return tvm.relax.const(_placed(known, along_rows)) if known.any() else None
    point = s.astype(given, "int32")
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


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"MatMulInteger": _matmul_integer})
