"""Pooling that tells where the maxima stand, and averages by divisors that TVM does not know."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx import pooling
from hybridc.compiler.frontends.onnx.node import Expr, Node, static
from hybridc.compiler.frontends.onnx_graph import ceil_pooling
from hybridc.compiler.ir.rewrite import constant

Tensor = Any  # torch.Tensor
aten = torch.ops.aten


def _each(value: Any, rank: int) -> list[int]:
    """A number for each axis; one stands for all."""
    found = [value] if isinstance(value, int) else list(value)
    return found * rank if len(found) == 1 else found


def _max_pool(rank: int) -> Converter:
    """The maxima, and their places within each image where these are read."""

    def convert(c: Call) -> tuple[Expr, Expr]:
        s, x = c.scope, c["self"]
        alone = len(static(x)) == rank + 1
        x = s.expand_dims(x, axis=[0]) if alone else x
        window = _each(c["kernel_size"], rank)
        stride = _each(c["stride"], rank) if c["stride"] else window
        pads, dilations = _each(c["padding"], rank), _each(c["dilation"], rank)
        reaches = [step * (size - 1) + 1 for size, step in zip(window, dilations, strict=True)]
        ends = map(ceil_pooling.behind, pads, stride, reaches) if c["ceil_mode"] else pads
        pads = [*pads, *ends]
        if 1 in c.used:
            attributes = {"kernel_shape": window, "strides": stride, "pads": pads}
            node = Node("MaxPool", [x], {**attributes, "dilations": dilations}, 2, 20, s)
            pooled, places = pooling.max_pool(node)  # type: ignore[misc]
            places = s.floor_mod(places, math.prod(static(x)[2:]))
        else:
            pool = {1: s.nn.max_pool1d, 2: s.nn.max_pool2d, 3: s.nn.max_pool3d}[rank]
            options = {"pool_size": window, "strides": stride, "padding": pads}
            pooled = pool(x, **options, dilation=dilations)
            places = constant(np.zeros(1), "int64")  # nobody reads it
        if not alone:
            return pooled, places
        return s.squeeze(pooled, axis=[0]), s.squeeze(places, axis=[0]) if 1 in c.used else places

    return convert


def _adaptive_max_pool(self: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The maxima of as many windows as are wanted, which may differ in size by one."""
    rank = len(output_size)
    image = self.shape[-rank:]
    flat = self.flatten(-rank)
    places = torch.zeros(1, 1, dtype=torch.int64)
    for extent, count in zip(image, output_size, strict=True):
        joined = places[:, None, :, None] * extent + _window_places(extent, count)[None, :, None, :]
        places = joined.reshape(joined.shape[0] * count, -1)
    taken = flat.index_select(-1, places.reshape(-1)).unflatten(-1, tuple(places.shape))
    best = taken.argmax(-1)
    numbers = places.expand(taken.shape)
    index = numbers.gather(-1, best.unsqueeze(-1)).squeeze(-1)
    largest = taken.amax(-1)
    shape = (*self.shape[:-rank], *output_size)
    return largest.reshape(shape), index.reshape(shape)


def _window_places(extent: int, count: int) -> Tensor:
    """`[count, longest]`: the elements of each window, the last again in those that are shorter."""
    number = torch.arange(count).unsqueeze(1)
    start = number * extent // count
    end = ((number + 1) * extent + count - 1) // count
    longest = max(-(-(i + 1) * extent // count) - i * extent // count for i in range(count))
    return torch.minimum(start + torch.arange(longest), end - 1)


def _averages(  # noqa: PLR0913, PLR0917 - torch's own signature
    rank: int,
    x: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Sums over a divisor, or averages of what is padded where windows reach beyond the padding.

    Zeros are written around, so that each window is whole and its average times its size the sum.
    Others are for others to write out; TVM's count what lies beyond the padding, too.
    """
    counted = ceil_mode and count_include_pad
    if divisor_override is None and not counted:
        return NotImplemented
    window = _each(kernel_size, rank)
    strides, pads = _each(stride or window, rank), _each(padding, rank)
    widths: list[int] = []
    share = torch.ones(())
    for extent, size, step, pad in zip(x.shape[-rank:], window, strides, pads, strict=True):
        last = (extent + 2 * pad - size + (step - 1 if ceil_mode else 0)) // step * step
        last -= step if ceil_mode and last >= extent + pad else 0  # it would begin in the padding
        widths = [pad, last + size - extent - pad, *widths]
        starts = torch.arange(0, last + 1, step)
        held = (starts + size).clamp(max=extent + 2 * pad) - starts
        share = share.unsqueeze(-1) * (size / held)
    pool = {1: aten.avg_pool1d, 2: aten.avg_pool2d, 3: aten.avg_pool3d}[rank]
    averages = pool(aten.constant_pad_nd(x, widths), window, strides)
    if divisor_override is None:
        return averages * share.to(x.dtype)
    return averages * (math.prod(window) / divisor_override)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "adaptive_max_pool2d.default": _adaptive_max_pool,
        "adaptive_max_pool3d.default": _adaptive_max_pool,
        "avg_pool1d.default": partial(_averages, 1),
        "avg_pool2d.default": partial(_averages, 2),
        "avg_pool3d.default": partial(_averages, 3),
    }
)
CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "max_pool2d_with_indices.default": _max_pool(2),
        "max_pool3d_with_indices.default": _max_pool(3),
    }
)
