"""Casts from and to floats of 8 bits, by tables of all that may come.

TVM rounds such numbers as if they had another exponent, and knows nothing of their NaN.  Tables are
made by the functions with which ONNX defines the casts.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from tvm import te, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.ir.rewrite import constant

_NARROW = frozenset(
    {
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
        "float8_e8m0fnu",
    }
)
_PACKED = frozenset({"int2", "int4", "uint2", "uint4", "float4_e2m1fn"})
# A float32 as a place in a table: its upper half, and whether anything stands in the lower.  Ties
# of numbers with up to three bits behind the point are told by that.
_HALF = 16


def _cast(node: Node) -> Expr:
    import onnx

    return _converted(node, str(onnx.helper.tensor_dtype_to_np_dtype(node.get("to"))))


def _cast_like(node: Node) -> Expr:
    return _converted(node, dtype(node.inputs[1]))


def _converted(node: Node, kind: str) -> Expr:
    """The input as another type; TVM has it right where neither is narrow."""
    x, s = node.inputs[0], node.scope
    source = dtype(x)
    if kind in _PACKED:
        raise UnsupportedError(f"a cast to {kind}, of which several share a byte")
    if source == kind or not {source, kind} & _NARROW:
        return None
    if source in _NARROW and kind == "bfloat16":  # rounding may flush the least power of two to 0
        return _widened(node, x, kind)
    if source in _NARROW:
        x = _widened(node, x, "float32")
    if kind not in _NARROW:
        return x if kind == "float32" else s.astype(x, kind)
    if dtype(x) not in ("float32", "float16", "bfloat16"):
        raise UnsupportedError(f"a cast of {source} to {kind}, which would round twice")
    return _narrowed(node, s.as_type(x, "float32"), kind)


def _widened(node: Node, x: Expr, kind: str) -> Expr:
    """Each of the 256 numbers as another type, which has them all."""
    numbers = np.arange(256, dtype=np.uint8).view(_type(dtype(x)))

    def kernel(a: Any, table: Any) -> Any:
        return te.compute(
            a.shape,
            lambda *i: table[tirx.Cast("int32", tirx.reinterpret("uint8", a(*i)))],
            name="widened",
        )

    return node.scope.te(kernel, x, constant(numbers.astype(_type(kind)), kind))


def _narrowed(node: Node, x: Expr, kind: str) -> Expr:
    """The nearest number of the type, or what the options say."""

    def kernel(a: Any, table: Any) -> Any:
        def element(*index: Any) -> Any:
            bits = tirx.reinterpret("uint32", a(*index))
            rest = tirx.bitwise_and(bits, tirx.const(2**_HALF - 1, "uint32"))
            upper = tirx.Cast("int32", tirx.shift_right(bits, tirx.const(_HALF, "uint32")))
            sticky = tirx.Select(rest.equal(0), tirx.const(0, "int32"), tirx.const(1, "int32"))
            return tirx.reinterpret(kind, table[upper * 2 + sticky])

        return te.compute(a.shape, element, name="narrowed")

    return node.scope.te(kernel, x, constant(_table(node, kind), "uint8"))


def _table(node: Node, kind: str) -> Any:
    import onnx
    from onnx.reference.ops.op_cast import cast_to

    places = np.arange(2 ** (_HALF + 1), dtype=np.uint32)
    floats = ((places >> 1 << _HALF) | (places & 1)).view(np.float32)
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(_type(kind)))
    options = bool(node.get("saturate", 1)), node.get("round_mode", "up")
    with np.errstate(all="ignore"):
        return cast_to(floats, to, *options).view(np.uint8)


def _type(kind: str) -> Any:
    return np.dtype(getattr(ml_dtypes, kind, kind))


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"Cast": _cast, "CastLike": _cast_like})
