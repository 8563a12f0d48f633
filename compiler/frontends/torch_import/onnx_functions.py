"""Operators of torch in those of ONNX, which torch's own exporter lacks or writes wrongly."""

import math
from collections.abc import Callable
from typing import Any

_OPEN_END = 2**63 - 1
_FLOAT, _INT64, _BOOL, _DOUBLE = 1, 7, 9, 11  # ONNX's numbers of types


def translations() -> dict[Any, Callable[..., Any]]:
    """Our functions by operator."""
    import torch

    aten = torch.ops.aten
    return {
        aten.atan2.default: _atan2,
        aten.bitwise_left_shift.Tensor: _shifted("LEFT"),
        aten.bitwise_left_shift.Tensor_Scalar: _shifted("LEFT"),
        aten.bitwise_right_shift.Tensor: _shifted("RIGHT"),
        aten.bitwise_right_shift.Tensor_Scalar: _shifted("RIGHT"),
        aten.isinf.default: _infinite(abs=True),
        aten.isneginf.default: _infinite(-math.inf),
        aten.isposinf.default: _infinite(),
        aten.masked_select.default: _masked_select,
        aten.scaled_dot_product_attention.default: _attention,
        aten.unique_consecutive.default: _unique_consecutive,
    }


def _atan2(self: Any, other: Any) -> Any:
    """The angle of a point, by an octant: exact on the axes, of signed zeros and infinities too.

    Torch's own gives -pi where pi is the angle, and 0 for what is no number.
    """
    if not self.dtype.is_floating_point() or self.dtype != other.dtype:
        raise TypeError("atan2 of other numbers than of one float type")
    from onnx import helper

    op = _operators()

    def like(value: float) -> Any:
        return op.CastLike(op.Constant(value=helper.make_tensor("", _DOUBLE, [], [value])), self)

    def negative(x: Any) -> Any:
        return op.Or(op.Less(x, like(0)), op.Less(op.Reciprocal(x), like(0)))

    high, wide = op.Abs(self), op.Abs(other)
    steep = op.Greater(high, wide)
    small, large = op.Where(steep, wide, high), op.Where(steep, high, wide)
    ratio = op.Where(op.Equal(small, large), like(1), op.Div(small, large))
    angle = op.Atan(op.Where(op.Equal(large, like(0)), like(0), ratio))
    angle = op.Where(steep, op.Sub(like(math.pi / 2), angle), angle)
    angle = op.Where(negative(other), op.Sub(like(math.pi), angle), angle)
    angle = op.Where(negative(self), op.Neg(angle), angle)
    total = op.Add(self, other)
    unknown = op.Or(op.IsNaN(self), op.IsNaN(other))
    return op.Where(unknown, total, angle)


def _attention(  # noqa: PLR0913, PLR0917 - torch's own signature
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Attention, zeros in the rows for which a mask leaves no key.

    Torch's own function gives the mean of all values there where the mask is of booleans, and NaN
    where it is of floats.
    """
    from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention

    rest = (dropout_p, is_causal, scale, enable_gqa)
    if attn_mask is None:
        return aten_scaled_dot_product_attention(query, key, value, None, *rest)
    from onnx import helper

    op = _operators()
    never, zero = (
        op.CastLike(op.Constant(value=helper.make_tensor("", _DOUBLE, [], [number])), query)
        for number in (-math.inf, 0.0)
    )
    if int(attn_mask.dtype) == _BOOL:
        met, attn_mask = attn_mask, op.Where(attn_mask, zero, never)
    else:
        met = op.Not(op.Equal(attn_mask, never))
    some = op.Cast(op.ReduceMax(op.Cast(met, to=_FLOAT), [-1], keepdims=1), to=_BOOL)
    result = aten_scaled_dot_product_attention(query, key, value, attn_mask, *rest)
    return op.Where(some, result, zero)


def _shifted(direction: str) -> Callable[..., Any]:
    """Bits moved; the sign is kept to the right.  Torch's own makes bytes signed."""

    def shift(self: Any, other: Any) -> Any:
        op, kind = _operators(), self.dtype
        wide = int(getattr(type(kind), f"UINT{kind.bitwidth}"))
        places = op.Cast(other, to=wide)
        if not kind.is_signed():
            return op.BitShift(self, places, direction=direction)
        negative = op.Less(self, op.CastLike(0, self))
        turned = direction == "RIGHT"  # what is negative is moved as its complement
        x = op.Where(negative, op.BitwiseNot(self), self) if turned else self
        moved = op.Cast(op.BitShift(op.Cast(x, to=wide), places, direction=direction), to=int(kind))
        return op.Where(negative, op.BitwiseNot(moved), moved) if turned else moved

    return shift


def _infinite(value: float = math.inf, abs: bool = False) -> Callable[..., Any]:  # noqa: A002
    """Whether numbers are an infinity; torch's own takes those for it that float32 cannot hold."""

    def compare(self: Any) -> Any:
        from onnx import helper

        op = _operators()
        if not self.dtype.is_floating_point():
            return op.Not(op.Equal(self, self))
        infinity = op.CastLike(
            op.Constant(value=helper.make_tensor("", _DOUBLE, [], [value])), self
        )
        return op.Equal(op.Abs(self) if abs else self, infinity)

    return compare


def _masked_select(self: Any, mask: Any) -> Any:
    """The elements where a mask is true, after both are broadcast."""
    op = _operators()
    spread = op.Expand(self, op.Shape(mask))
    chosen = op.Expand(mask, op.Shape(spread))
    return op.Compress(op.Reshape(spread, [-1]), op.Reshape(chosen, [-1]), axis=0)


def _unique_consecutive(
    self: Any, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> tuple[Any, Any, Any]:
    """Of equal neighbours the first; which of these each element is; how many there were.

    Torch's own function takes integers alone, and the largest for none.
    """
    del return_inverse, return_counts  # what nobody reads is left out
    op, rank = _operators(), len(self.shape)
    order = list(range(rank))
    if dim is not None and rank:
        order[0], order[dim] = order[dim], 0
    moved = op.Transpose(self, perm=order) if dim else self
    moved = op.Reshape(self, [-1]) if dim is None else moved
    rows = op.Reshape(moved, [0, -1], allowzero=0) if dim is not None else moved
    extent = op.Slice(op.Shape(rows), [0], [1])
    same = op.Equal(op.Slice(rows, [1], [_OPEN_END], [0]), op.Slice(rows, [0], [-1], [0]))
    other = op.Cast(op.Not(same), to=_INT64)
    other = other if dim is None else op.ReduceMax(other, [1], keepdims=0)
    # The first is another than what stands before it, unless there is none.
    other = op.Slice(op.Concat(op.Constant(value_ints=[1]), other, axis=0), [0], extent, [0])
    first = op.Cast(other, to=_BOOL)
    values = op.Compress(moved, first, axis=0)
    values = op.Transpose(values, perm=order) if dim else values
    inverse = op.Sub(op.CumSum(other, 0), 1)
    inverse = op.Reshape(inverse, op.Shape(self)) if dim is None else inverse
    places = op.Compress(op.Range(0, op.Squeeze(extent), 1), first, axis=0)
    following = op.Concat(op.Slice(places, [1], [_OPEN_END], [0]), extent, axis=0)
    return values, inverse, op.Sub(op.Slice(following, [0], op.Shape(places), [0]), places)


def _operators() -> Any:
    """Those of ONNX, whose signatures take no values of a script."""
    from onnxscript import opset18

    return opset18
