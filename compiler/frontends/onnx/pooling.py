"""Pooling with the places of maxima, p-norms of windows, transposed convolution to a size."""

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
    dtype,
    is_float,
    static,
)
from hybridc.compiler.model import Array
from hybridc.compiler.rewrite import constant


def max_pool(node: Node) -> list[Expr] | None:
    """The maxima, and where they stand in the whole input; without places TVM does it."""
    if not node.named(1):
        return None
    x, s, kind = node.inputs[0], node.scope, dtype(node.inputs[0])
    batch, channels, *image = node.shape()
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
    made = [batch, channels, *counts]
    numbers = _in_order(windows, image, int(node.get("storage_order", 0)))
    rows = constant(np.broadcast_to(numbers, (batch, channels, *windows.shape)), "int64")
    index = s.gather_elements(rows, s.expand_dims(best, axis=[3]), axis=3)
    first = np.arange(batch * channels).reshape(batch, channels, 1, 1) * math.prod(image)
    index = s.add(index, constant(first, "int64"))
    return [s.reshape(s.max(taken, axis=[3]), made), s.reshape(index, made)]


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
        count = (-(-room // strides[i]) if node.get("ceil_mode", 0) else room // strides[i]) + 1
        if (count - 1) * strides[i] >= extent + pads[i]:
            count -= 1  # a window that begins behind the image is none
        starts = np.arange(count)[:, None] * strides[i] - pads[i]
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


def _lp_pool(node: Node) -> Expr:
    """The p-norm of windows, those at the end that reach beyond the padding too.

    TVM multiplies their averages, which leave out what lies beyond, by the whole window.
    """
    x, window, s = node.inputs[0], [int(extent) for extent in node.get("kernel_shape")], node.scope
    count = len(window)
    pools = {1: s.nn.avg_pool1d, 2: s.nn.avg_pool2d, 3: s.nn.avg_pool3d}
    automatic = node.get("auto_pad", "NOTSET") != "NOTSET"
    if automatic or not node.get("ceil_mode", 0) or count not in pools:
        return None
    strides, dilation = (node.get(name, [1] * count) for name in ("strides", "dilations"))
    padding = list(node.get("pads", [0] * 2 * count))
    for i, extent in enumerate(node.shape()[2:]):
        end, stride = extent + padding[i], strides[i]
        reach = dilation[i] * (window[i] - 1) + 1
        last = -(-(end + padding[count + i] - reach) // stride)
        last -= last * stride >= end  # a window that begins behind the image is none
        padding[count + i] = max(0, last * stride + reach - end)
    order = float(node.get("p", 2))
    raised = s.power(s.abs(x), order)
    options = {"pool_size": window, "strides": strides, "padding": padding, "dilation": dilation}
    mean = pools[count](raised, **options, count_include_pad=True)
    return s.power(s.multiply(mean, math.prod(window)), 1 / order)


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
        "ConvTranspose": _conv_transpose,
        "GlobalAveragePool": _of_nothing(np.nan),  # 0 divided by 0
        "GlobalLpPool": _of_nothing(0.0),
        "GlobalMaxPool": _of_nothing(-np.inf),
        "LpPool": _lp_pool,
        "MaxPool": max_pool,
    }
)
