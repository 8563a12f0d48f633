"""Operators on images, and on the order and number of axes, whose options TVM lacks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import (
    Converter,
    Expr,
    Node,
    dtype,
    static,
    zeros,
)
from hybridc.compiler.ir.rewrite import constant
from hybridc.compiler.kernels.indexing import placed
from hybridc.compiler.model import Array


def _space_to_depth(node: Node) -> Expr:
    """Blocks to channels: of a pixel first (DCR), or of a channel first (CRD)."""
    x, s, block = node.inputs[0], node.scope, int(node.get("blocksize"))
    n, c, h, w = node.shape()
    x = s.reshape(x, [n, c, h // block, block, w // block, block])
    mode = node.get("mode", "DCR")
    order = [0, 3, 5, 1, 2, 4] if mode == "DCR" else [0, 1, 3, 5, 2, 4]
    return s.reshape(s.permute_dims(x, order), [n, c * block * block, h // block, w // block])


def _col2im(node: Node) -> Expr:
    """Sum blocks `[batch, channels * block, places]` into an image `[batch, channels, ...]`.

    Each position within a block falls on a grid of pixels: the sum of the images, one for each
    position, whose pixels on the grid are the block's and whose others are 0.
    """
    x, s = node.inputs[0], node.scope
    image, block = node.ints(1), node.ints(2)
    ones, none = [1] * len(image), [0] * 2 * len(image)
    dilations, strides = (node.get(name, ones) for name in ("dilations", "strides"))
    blocks = _Blocks(image, block, dilations, strides, node.get("pads", none))
    batch, rows, places = node.shape()
    if places != math.prod(blocks.counts) or min(blocks.counts) < 1:
        raise UnsupportedError(f"{places} blocks where {math.prod(blocks.counts)} fit")
    channels = rows // math.prod(block)
    flat = s.reshape(x, [batch, channels, math.prod(block), places])
    # Every pixel lists what falls on it, padded with a place that holds 0.
    sources = blocks.sources()
    zero = constant(np.zeros((batch, channels, 1)), dtype(x))
    joined = s.concat([s.reshape(flat, [batch, channels, -1]), zero], axis=2)
    taken = s.take(joined, relax.const(sources.ravel(), "int64"), axis=2)
    taken = s.reshape(taken, [batch, channels, *sources.shape])
    return s.reshape(s.sum(taken, axis=[3]), [batch, channels, *image])


@dataclass(frozen=True)
class _Blocks:
    """Blocks of elements that lie on an image, by axis; `pads` are those before, then those behind.

    A block's elements are `dilations` pixels apart, and a block begins `strides` behind the last.
    """

    image: Sequence[int]
    block: Sequence[int]
    dilations: Sequence[int]
    strides: Sequence[int]
    pads: Sequence[int]

    @property
    def counts(self) -> list[int]:
        """How many blocks there are along each axis."""
        behind = self.pads[len(self.image) :]
        rows = zip(
            self.image, self.pads, behind, self.block, self.dilations, self.strides, strict=False
        )
        return [
            (size + before + after - dilation * (block - 1) - 1) // stride + 1
            for size, before, after, block, dilation, stride in rows
        ]

    def sources(self) -> Array:
        """`[pixels, most]`: the elements of all blocks that fall on each pixel, or their count."""
        rank = len(self.image)
        grids = np.indices([*self.block, *self.counts]).reshape(2 * rank, -1)
        elements = grids.shape[1]
        at = [
            grids[rank + i] * self.strides[i] - self.pads[i] + grids[i] * self.dilations[i]
            for i in range(rank)
        ]
        inside = np.all([(a >= 0) & (a < n) for a, n in zip(at, self.image, strict=True)], axis=0)
        number = np.flatnonzero(inside)
        pixel: Any = np.ravel_multi_index([a[inside] for a in at], self.image)
        order = np.argsort(pixel, kind="stable")
        pixel, number = pixel[order], number[order]
        pixels = math.prod(self.image)
        total = np.bincount(pixel, minlength=pixels)
        first = np.concatenate([[0], np.cumsum(total)[:-1]])
        sources = np.full((pixels, max(1, int(total.max(initial=0)))), elements)
        sources[pixel, np.arange(len(pixel)) - first[pixel]] = number
        return sources


def _max_unpool(node: Node) -> Expr:
    """Put each element where the pooling found it; indices count in the shape that it had."""
    x, indices, s = node.inputs[0], node.inputs[1], node.scope
    kernel = node.get("kernel_shape")
    rank = len(kernel)
    strides, pads = node.get("strides", [1] * rank), node.get("pads", [0] * 2 * rank)
    sizes = node.shape()
    natural = [
        *sizes[:2],
        *(
            (sizes[2 + i] - 1) * strides[i] + kernel[i] - pads[i] - pads[rank + i]
            for i in range(rank)
        ),
    ]
    wanted = node.ints(2, natural)
    if any(big < small for big, small in zip(wanted, natural, strict=True)):
        raise UnsupportedError("an output smaller than what was pooled")
    count, total, kind = math.prod(sizes), math.prod(natural), dtype(x)
    if not count:
        return zeros(s, wanted, kind)
    operands = [s.reshape(each, [count]) for each in (x, s.as_type(indices, "int64"))]
    (flat,) = s.loops("placed", placed.placed(count, total, kind), operands, [((total,), kind)])
    y = s.reshape(flat, natural)
    for axis, (big, small) in enumerate(zip(wanted, natural, strict=True)):
        if big > small:
            shape = list(static(y))
            shape[axis] = big - small
            y = s.concat([y, constant(np.zeros(shape), dtype(x))], axis=axis)
    return y


def _tile(node: Node) -> Expr:
    """The tensor as often along each axis as repeats say."""
    return node.scope.tile(node.inputs[0], node.ints(1))


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "Col2Im": _col2im,
        "MaxUnpool": _max_unpool,
        "SpaceToDepth": _space_to_depth,
        "Tile": _tile,
    }
)
