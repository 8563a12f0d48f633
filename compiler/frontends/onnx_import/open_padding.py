"""Pad by widths that follow from open sizes, such as up to a multiple of 32."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx_import.open_node import Expr, OpenNode, shape_of
from hybridc.compiler.ir.rewrite import constant


def pad(node: OpenNode) -> Expr | None:
    """A tensor padded by a constant or by its edge; cropped where a width is negative."""
    widths = node.list(1) if len(node.inputs) > 1 else None
    mode = node.options.get("mode", b"constant").decode()
    if mode == "reflect":
        _require_reflections(node, widths or node.options.get("pads", ()))
    if widths is None or all(isinstance(width, int) for width in widths):
        return None
    if mode not in ("constant", "edge"):
        raise UnsupportedError(f"mode={mode} and widths that are not constants")
    extents, dtype = node.shape(), str(node.inputs[0].ty.dtype)
    axes = list(range(len(extents)))
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = [axis % len(extents) for axis in node.list(3) or ()]
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    value = constant(np.zeros(()), dtype) if fill is None else relax.op.reshape(fill, shape_of([]))
    x = node.inputs[0]
    for axis, low, high in zip(axes, widths, widths[len(widths) // 2 :], strict=False):
        if not (_is_zero(low) and _is_zero(high)):
            after = node.sizes.plain(extents[axis] + low + high)
            node.sizes.raise_until_positive(after, "a Pad leaves an element")
            x = _padded(x, (axis, len(extents)), (extents[axis], low, after), value, mode)
    return x


def _require_reflections(node: OpenNode, widths: Sequence[Any]) -> None:
    """Bound axes that are reflected from below by two elements: one has no reflection."""
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        return
    for axis, extent in enumerate(node.shape()):
        if any(not _is_zero(width) for width in widths[axis :: len(node.shape())]):
            node.sizes.raise_until_positive(extent - 1, "a Pad reflects elements behind the first")


def _is_zero(width: Any) -> bool:
    return isinstance(width, int) and width == 0


def _padded(
    x: Expr, axis: tuple[int, int], sizes: tuple[Any, Any, Any], value: Expr, mode: str
) -> Expr:
    """One axis of a tensor of a rank: its size, what is put before, and its size then."""
    o, (place, rank), (extent, low, after) = relax.op, axis, sizes
    at = o.subtract(o.arange(0, after, 1, "int64"), _number(low))
    first, last = relax.const(0, "int64"), _number(extent - 1)
    taken = o.take(x, o.minimum(o.maximum(at, first), last), axis=place)
    if mode == "edge":
        return taken
    inside = o.logical_and(o.greater_equal(at, first), o.less_equal(at, last))
    shape = [after if a == place else 1 for a in range(rank)]
    return o.where(o.reshape(inside, shape_of(shape)), taken, value)


def _number(size: Any) -> Expr:
    return relax.op.shape_to_tensor(shape_of([size]))
