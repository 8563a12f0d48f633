"""Clip, and Pad in all its modes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm
from tvm import te, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, Scope, dtype, static
from hybridc.compiler.ir.rewrite import are_known, constant
from hybridc.compiler.model import Array

_WAYS = {"edge": "edge", "reflect": "reflect", "wrap": "wrap"}  # ONNX's modes as numpy's


def _clip(node: Node) -> Expr:
    """Bounds are attributes before opset 11, then inputs; one that is missing or NaN is none."""
    x, s = node.inputs[0], node.scope
    for index, name, apply in ((1, "min", s.maximum), (2, "max", s.minimum)):
        operand = node.input(index)
        bound = node.get(name) if operand is None else _known(operand)
        if operand is not None and bound is None:
            x = apply(x, operand)
        elif bound is not None and not np.isnan(bound):
            x = apply(x, bound)
    return x


def _known(operand: Expr) -> Any:
    return operand.value.numpy().item() if isinstance(operand, tvm.ir.GenericConst) else None


def _pad(node: Node) -> Expr:
    """Crop where a width is negative, and pad by a constant, or by elements of the tensor."""
    x, s, rank = node.inputs[0], node.scope, len(node.shape())
    pairs = _widths(node, rank)
    mode = node.get("mode", "constant")
    if mode == "constant":
        return _pad_constant(node, pairs)
    if mode not in _WAYS:
        raise UnsupportedError(f"mode={mode}")
    for axis, (extent, pair) in enumerate(zip(node.shape(), pairs, strict=True)):
        if not pair.any():
            continue
        if are_known([extent]):
            places = tvm.relax.const(_places(extent, pair, _WAYS[mode]), "int64")
            x = s.take(x, places, axis=axis)
        else:
            x = _pad_open(s, x, axis, pair, _WAYS[mode])
    return x


def _widths(node: Node, rank: int) -> Array:
    """Widths `[rank, 2]` before and behind each axis, from attributes before opset 11."""
    attribute = node.get("pads", node.get("paddings"))
    widths = node.value(1) if attribute is None else np.array(attribute)
    axes = node.ints(3, list(range(rank)))
    pairs = np.zeros((rank, 2), int)
    before, after = np.split(np.asarray(widths), 2)
    for axis, low, high in zip(axes, before, after, strict=True):
        pairs[axis % rank] = low, high
    return pairs


def _places(extent: int, pair: Array, mode: Any) -> Array:
    """Which element each place of a padded axis shows; cropped first, as ONNX Runtime does."""
    low, high = (int(width) for width in pair)
    kept = np.arange(extent)[max(0, -low) : extent - max(0, -high)]
    if not kept.size:
        raise UnsupportedError("a padding of nothing")
    padded: Array = np.pad(kept, (max(0, low), max(0, high)), mode)
    return padded


def _pad_open(s: Scope, x: Expr, axis: int, pair: Array, mode: str) -> Expr:
    """Pad an axis whose extent only a call knows, by the elements that `_places` tells."""
    low, high = (int(width) for width in pair)
    if min(low, high) < 0:
        raise UnsupportedError(f"mode={mode} and a crop of an open axis")

    def kernel(a: Expr) -> Expr:
        extent = a.shape[axis]
        sizes = [*a.shape[:axis], extent + low + high, *a.shape[axis + 1 :]]

        def element(*i: Any) -> Any:
            return a(*i[:axis], _place(i[axis] - low, extent, mode), *i[axis + 1 :])

        return te.compute(sizes, element, name="padded")

    return s.te(kernel, x)


def _place(at: Any, extent: Any, mode: str) -> Any:
    """The element that is seen at a place before, within or behind an axis."""
    last = extent - 1
    if mode == "wrap":
        return tirx.floormod(at, extent)
    if mode == "edge":
        return tirx.max(tirx.min(at, last), 0)
    # There and back again, as often as it takes; one element is its own reflection.
    forth = tirx.floormod(at, tirx.max(2 * last, 1))
    return tirx.min(forth, 2 * last - forth)


def _pad_constant(node: Node, pairs: Array) -> Expr:
    x, s, operand = node.inputs[0], node.scope, node.input(2)
    shape = node.shape()
    if (pairs < 0).any():
        # Of the others Relax would not see that an open size stays what it is.
        axes = [axis for axis, pair in enumerate(pairs) if (pair < 0).any()]
        begin = [max(0, -int(pairs[axis][0])) for axis in axes]
        end = [shape[axis] - max(0, -int(pairs[axis][1])) for axis in axes]
        if not are_known(end):  # nothing is left of a size that is smaller than what is cut off
            end = [tirx.max(last, first) for first, last in zip(begin, end, strict=True)]
        x = s.strided_slice(x, axes, begin, end, assume_inbound=not are_known(end))
        pairs = np.maximum(pairs, 0)
    fill = node.get("value", 0.0) if operand is None else _known(operand)
    kind = dtype(x)
    if not pairs.any():
        return x
    if fill is not None and not isinstance(fill, bool) and kind == "float32":
        return s.nn.pad(x, pairs.ravel().tolist(), "constant", pad_value=float(fill))
    value = operand if fill is None else constant(np.array(fill), kind)
    for axis, (low, high) in enumerate(pairs.tolist()):
        x = _framed(s, x, (axis, low, high), value)
    return x


def _framed(s: Any, x: Expr, place: tuple[int, int, int], value: Expr) -> Expr:
    """Put constant slices before and behind an axis, so many each; exact in every type."""
    axis, low, high = place
    shape = static(x)
    parts = [x]
    for width, behind in ((low, False), (high, True)):
        if width:
            frame = [*shape[:axis], width, *shape[axis + 1 :]]
            filled = s.broadcast_to(s.reshape(value, [1] * len(shape)), frame)
            parts = [*parts, filled] if behind else [filled, *parts]
    return s.concat(parts, axis=axis) if len(parts) > 1 else x


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"Clip": _clip, "Pad": _pad})
