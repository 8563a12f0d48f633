"""Operators of torch in those of ONNX, which torch's own exporter lacks or writes wrongly."""

from collections.abc import Callable
from typing import Any

_OPEN_END = 2**63 - 1
_INT64, _BOOL = 7, 9  # ONNX's numbers of types


def translations() -> dict[Any, Callable[..., Any]]:
    """Our functions by operator."""
    import torch

    aten = torch.ops.aten
    return {
        aten.masked_select.default: _masked_select,
        aten.unique_consecutive.default: _unique_consecutive,
    }


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
