"""Pooling with the places of maxima, averages beyond padding, transposed convolution to a size."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import (
    Converter,
    Expr,
    Node,
    counted,
    dtype,
    is_float,
    static,
)
from hybridc.compiler.frontends.onnx_graph import ceil_pooling
from hybridc.compiler.ir.rewrite import are_known, constant
from hybridc.compiler.model import Array


def max_pool(node: Node) -> list[Expr] | None:
    """The maxima, and where they stand in the whole input; without places TVM does it."""
    if not node.named(1):
        return None
    x, s, kind = node.inputs[0], node.scope, dtype(node.inputs[0])
    batch, channels, *image = node.shape()
    if not are_known([channels, *image]):
        raise UnsupportedError("places of maxima and open sizes of the image")
    windows, counts = _windows(node, image)
    flat = s.reshape(x, [batch, channels, -1])
    outside = windows < 0
    taken = s.take(flat, relax.const(np.maximum(windows, 0).ravel(), "int64"), axis=2)
    taken = s.reshape(taken, [batch, channels, *windows.shape])
    if outside.any():
        lowest = -np.inf if is_float(x) else np.iinfo(kind).min
        taken = s.where(
            constant(outside[None, None], "bool"), constant(np.array(lowest), kind), taken
        )
    best = s.argmax(taken, axis=3)
    pooled_shape = [batch, channels, *counts]
    numbers = _in_order(windows, image, int(node.get("storage_order", 0)))
    number, size = windows.shape
    chosen = s.add(best, constant(np.arange(number) * size, "int64"))
    index = s.take(constant(numbers.ravel(), "int64"), chosen, axis=0)
    area = math.prod(image)
    first = constant(np.arange(channels)[:, None] * area, "int64")
    images = s.reshape(counted(s, batch), [batch, 1, 1])
    index = s.add(s.add(index, first), s.multiply(images, channels * area))
    return [s.reshape(s.max(taken, axis=[3]), pooled_shape), s.reshape(index, pooled_shape)]


def _windows(node: Node, image: Sequence[int]) -> tuple[Array, list[int]]:
    """The elements of each window, `[windows, size]`, -1 for padding; the windows of each axis."""
    kernel = node.get("kernel_shape")
    rank = len(kernel)
    strides, dilations = (node.get(name, [1] * rank) for name in ("strides", "dilations"))
    pads = node.get("pads", [0] * 2 * rank)
    if node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise UnsupportedError("places of maxima and auto_pad")
    axes: list[Array] = []
    for i, extent in enumerate(image):
        room = extent + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1
        starts = np.arange(room // strides[i] + 1)[:, None] * strides[i] - pads[i]
        places = starts + np.arange(kernel[i]) * dilations[i]
        axes.append(np.where((places < 0) | (places >= extent), -1, places))
    flat = np.zeros((1, 1), np.int64)
    for extent, places in zip(image, axes, strict=True):
        joined = flat[:, None, :, None] * extent + places[None, :, None, :]
        bad = (flat[:, None, :, None] < 0) | (places[None, :, None, :] < 0)
        joined = np.where(bad, -1, joined)
        flat = joined.reshape(len(flat) * len(places), -1)
    return flat, [len(places) for places in axes]


def _in_order(windows: Array, image: Sequence[int], columns_first: int) -> Array:
    """The numbers of elements, counted along rows or, on demand, along columns."""
    if not columns_first:
        return windows
    places = np.unravel_index(np.maximum(windows, 0), image)
    numbers: Array = np.ravel_multi_index(places[::-1], tuple(image[::-1]))
    return numbers


def _average_pool(node: Node) -> Expr:
    """Averages that count the padding, but not what windows reach beyond it.

    TVM counts that too.  What counts no padding comes without `ceil_mode` (`ceil_pooling`).
    """
    if not node.get("ceil_mode", 0):
        return None
    if not are_known(node.shape()[2:]):
        return _averages_of_open(node)
    declared, padding = node.get("pads", [0] * 2 * len(node.get("kernel_shape"))), _padding(node)
    if all(wide <= known for wide, known in zip(padding, declared, strict=True)):
        return None
    s, share = node.scope, np.ones(())
    for i, extent in enumerate(node.shape()[2:]):
        window, stride, dilation = _window(node, i)
        end = declared[i] + extent + declared[len(declared) // 2 + i]
        reach = dilation * (window - 1) + 1
        starts = np.arange(
            0, declared[i] + extent + padding[len(padding) // 2 + i] - reach + 1, stride
        )
        counted = (starts[:, None] + dilation * np.arange(window) < end).sum(axis=1)
        share = share[..., None] * (window / counted)
    return s.multiply(_whole_windows(node, node.inputs[0]), share)


def _averages_of_open(node: Node) -> Expr:
    """With open sizes the padding becomes a part of the image, and what lies behind it is none."""
    count = len(node.get("kernel_shape"))
    pads, s = node.get("pads", [0] * 2 * count), node.scope
    windows = [_window(node, axis) for axis in range(count)]
    ends = [
        ceil_pooling.behind(end, stride, dilation * (window - 1) + 1) - end
        for end, (window, stride, dilation) in zip(pads[count:], windows, strict=True)
    ]
    frame = [0] * 4 + [pads[side * count + axis] for axis in range(count) for side in (0, 1)]
    x = s.nn.pad(node.inputs[0], frame) if any(pads) else node.inputs[0]
    return _pooled(node, x, [0] * count + ends, count_include_pad=False)


def _window(node: Node, axis: int) -> tuple[int, int, int]:
    """Elements of a window along an axis, its stride and its dilation."""
    strides, dilations = (node.get(name) for name in ("strides", "dilations"))
    stride, dilation = (each[axis] if each else 1 for each in (strides, dilations))
    return node.get("kernel_shape")[axis], stride, dilation


def _padding(node: Node) -> list[int]:
    """The padding with which windows end where it does."""
    extents = node.shape()[2:]
    count = len(extents)
    padding = list(node.get("pads", [0] * 2 * count))
    for i, extent in enumerate(extents):
        window, stride, dilation = _window(node, i)
        end = extent + padding[i]
        reach = dilation * (window - 1) + 1
        last = -(-(end + padding[count + i] - reach) // stride)
        last -= last * stride >= end  # a window that begins behind the image is none
        padding[count + i] = max(0, last * stride + reach - end)
    return padding


def _whole_windows(node: Node, x: Expr) -> Expr:
    """Averages over all of each window; of what lies outside of the image as zeros."""
    return _pooled(node, x, _padding(node), count_include_pad=True)


def _pooled(node: Node, x: Expr, padding: list[int], *, count_include_pad: bool) -> Expr:
    window, s = node.get("kernel_shape"), node.scope.nn
    strides, dilations = (node.get(name, [1] * len(window)) for name in ("strides", "dilations"))
    pools = {1: s.avg_pool1d, 2: s.avg_pool2d, 3: s.avg_pool3d}
    options = {"strides": strides, "padding": padding, "dilation": dilations}
    return pools[len(window)](x, pool_size=window, **options, count_include_pad=count_include_pad)


def _conv_transpose(node: Node) -> Expr:
    """With an output's shape the padding follows from it; else TVM does it."""
    wanted = node.get("output_shape")
    if wanted is None:
        return None
    x, w, s = node.inputs[0], node.inputs[1], node.scope
    image, kernel = node.shape()[2:], static(w)[2:]
    rank = len(kernel)
    strides, dilations = (node.get(name, [1] * rank) for name in ("strides", "dilations"))
    extra = node.get("output_padding", [0] * rank)
    wanted = wanted[-rank:]  # batch and channels may stand before
    begins, ends = [], []
    for i in range(rank):
        whole = strides[i] * (image[i] - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1
        total = whole - wanted[i]
        if total < 0:
            # What lies beyond is 0, as an output padding makes it.
            extra = [*extra[:i], extra[i] - total, *extra[i + 1 :]]
            total = 0
        if extra[i] >= max(strides[i], dilations[i]):
            raise UnsupportedError("an output_shape that no convolution reaches")
        half = total // 2
        upper = node.get("auto_pad", "NOTSET") == "SAME_UPPER"
        begins.append(half if upper else total - half)
        ends.append(total - begins[-1])
    operators = {1: s.nn.conv1d_transpose, 2: s.nn.conv2d_transpose, 3: s.nn.conv3d_transpose}
    if rank not in operators:
        raise UnsupportedError(f"{rank} spatial axes")
    options = {"strides": strides, "padding": [*begins, *ends], "output_padding": extra}
    y = operators[rank](x, w, **options, dilation=dilations, groups=node.get("group", 1))
    bias = node.input(2)
    return y if bias is None else s.add(y, s.reshape(bias, [1, -1, *[1] * rank]))


def _of_nothing(value: float) -> Converter:
    """What pooling of images without pixels gives; of others TVM does it."""

    def convert(node: Node) -> Expr | None:
        sizes = [getattr(extent, "value", 1) for extent in node.inputs[0].ty.shape.values]
        if 0 not in sizes[2:]:
            return None
        pooled = [*node.shape()[:2], *[1] * (len(sizes) - 2)]
        return constant(np.full(pooled, value), dtype(node.inputs[0]))

    return convert


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "AveragePool": _average_pool,
        "ConvTranspose": _conv_transpose,
        "GlobalAveragePool": _of_nothing(np.nan),  # 0 divided by 0
        "GlobalLpPool": _of_nothing(0.0),
        "GlobalMaxPool": _of_nothing(-np.inf),
        "MaxPool": max_pool,
    }
)
