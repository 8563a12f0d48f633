"""Take from the windows of convolutions what never lies on their image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    are_known,
    operator,
    rewrite,
    shape,
    with_attributes,
)
from hybridc.passes import _quantization

# The share of a convolution's work that is worth to be parted.
_LEAST = 0.1
# Operations in the time that a byte of weights takes from memory: 356 GFLOP/s by 20 GB/s on two
# cores of Emerald Rapids.  Winograd's F(4, 3) computes a quarter, and reads four times the weights.
_FLOPS_PER_BYTE, _WINOGRAD = 18, 4
_CONVOLUTIONS = ("nn.conv1d", "nn.conv2d", "nn.conv3d")


@dataclass(frozen=True)
class ClipWindows(Pass):
    """Take from the windows of convolutions what never lies on their image.

    A window that is larger than its image, or whose dilation is, has edges that read nothing but
    padding, wherever it stands: a 3x3x3 window on a volume of one slice is one of 1x3x3, and a 3x3
    window with dilation 12 on an image of 8x8 is one pixel.

    The first and the last slices of a volume see fewer taps of its window than those between.
    Where that is much of the work, as for 5x5x5 windows on few slices, each run of slices that see
    the same taps becomes a convolution of its own, unless its copy of the weights costs more.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Clip the windows of convolutions along every axis whose size is known."""
        clipped = rewrite(module, _clip)
        return clipped if context.target.gpu is not None else rewrite(clipped, _parted)


@dataclass(frozen=True)
class _Axis:
    """A window of `taps` along one axis of an image, and the `made` places where it stands."""

    size: int
    taps: int
    made: int
    stride: int
    dilation: int
    before: int
    behind: int

    def sees(self, tap: int) -> bool:
        """Whether a tap lies on the image anywhere."""
        return any(self.lies(tap, at) for at in range(self.made))

    def lies(self, tap: int, at: int) -> bool:
        """Whether a tap lies on the image where the window stands at a place."""
        return 0 <= at * self.stride + tap * self.dilation - self.before < self.size

    def runs(self) -> Iterator[tuple[range, range]]:
        """Places in a row of which the same taps lie on the image, and these taps."""
        known = [[tap for tap in range(self.taps) if self.lies(tap, at)] for at in range(self.made)]
        for taps, places in groupby(range(self.made), known.__getitem__):
            first, *_, last = list(places) * 2
            yield range(first, last + 1), range(taps[0], taps[-1] + 1) if taps else range(0)

    def clipped(self) -> tuple[int, int]:
        """The taps that stay: from the first that sees the image to behind the last.

        Padding stays padding: where the next tap lies within the image, the one before it stays.
        """
        known = are_known((self.size, self.taps, self.made))
        seen = [tap for tap in range(self.taps) if self.sees(tap)] if known else []
        if not seen:
            return 0, self.taps
        first = min(seen[0], self.before // self.dilation)
        last = max(seen[-1] + 1, self.taps - self.behind // self.dilation)
        return first, last


def _clip(value: Expr, graph: Graph) -> Expr | None:
    if operator(value) not in _CONVOLUTIONS:
        return None
    data, weight = value.args
    layout = str(value.attrs.kernel_layout)
    axes = list(_axes(value))
    kept = [axis.clipped() for axis in axes]
    if all(span == (0, axis.taps) for span, axis in zip(kept, axes, strict=True)):
        return None
    places = [place for place, name in enumerate(layout) if name in "DHW"]
    clipped = _sliced(weight, graph, places, kept)
    spans = list(zip(axes, kept, strict=True))
    before = [axis.before - first * axis.dilation for axis, (first, _) in spans]
    behind = [axis.behind - (axis.taps - last) * axis.dilation for axis, (_, last) in spans]
    return with_attributes(value, [data, clipped], padding=[*before, *behind])


def _parted(value: Expr, graph: Graph) -> Expr | None:
    """A convolution of volumes as several, of slices of the result that see the same taps.

    None if that saves less than `_LEAST` of the work, or costs more to read than it saves, and for
    channels convolved alone and windows of one pixel, whose kernels go along the depth themselves.
    """
    if operator(value) != "nn.conv3d" or graph.constant(value.args[1]) is None:
        return None
    layouts = str(value.attrs.data_layout), str(value.attrs.kernel_layout)
    depth, *image = _axes(value)
    sizes, pixel = [axis.made for axis in image], all(axis.taps == 1 for axis in image)
    if layouts != ("NCDHW", "OIDHW") or not are_known([depth.size, depth.made, *sizes]):
        return None
    if pixel or shape(value.args[1])[1] == 1 < int(value.attrs.groups):
        return None
    runs = list(depth.runs())
    seen = sum(len(places) * len(taps) for places, taps in runs)
    saved = depth.made * depth.taps - seen
    more = sum(len(taps) for _, taps in runs) - depth.taps
    pixels = prod(sizes) * shape(value)[0]
    if not all(taps for _, taps in runs) or saved < _LEAST * depth.made * depth.taps:
        return None
    fast = all(axis.taps == 3 and axis.stride == axis.dilation == 1 for axis in image)
    if 2 * pixels * saved < _FLOPS_PER_BYTE * (_WINOGRAD if fast else 1) * 4 * more:
        return None
    return relax.op.concat([_part(value, depth, *run) for run in runs], 2)


def _part(value: Expr, depth: _Axis, places: range, taps: range) -> Expr:
    """The convolution for some slices of its result, by some taps."""
    data, weight = value.args
    first = places[0] * depth.stride + taps[0] * depth.dilation - depth.before
    last = places[-1] * depth.stride + taps[-1] * depth.dilation - depth.before
    padding = _integers(value.attrs.padding)
    padding[0] = padding[3] = 0
    operands = [
        relax.op.strided_slice(data, [2], [first], [last + 1], assume_inbound=True),
        relax.op.strided_slice(weight, [2], [taps[0]], [taps[-1] + 1], assume_inbound=True),
    ]
    return with_attributes(value, operands, padding=padding)


def _sliced(
    weight: Expr, graph: Graph, axes: Sequence[int], kept: Sequence[tuple[int, int]]
) -> Expr:
    """A part of the weights; of quantised ones, of their integers."""
    first, last = zip(*kept, strict=True)
    tensor = _quantization.dequantized(weight, graph)
    if tensor is None:
        return relax.op.strided_slice(weight, axes, first, last, assume_inbound=True)
    part = relax.op.strided_slice(tensor.data, axes, first, last, assume_inbound=True)
    return relax.op.dequantize(part, tensor.scale, tensor.zero, tensor.axis, tensor.dtype)


def _axes(value: Expr) -> Iterator[_Axis]:
    """The axes of a convolution's image, in order."""
    attrs, (data, weight) = value.attrs, value.args
    layouts = str(attrs.data_layout), str(attrs.kernel_layout), str(attrs.out_layout)
    sizes = [
        [extent for extent, name in zip(shape(tensor), layout, strict=True) if name in "DHW"]
        for tensor, layout in zip((data, weight, value), layouts, strict=True)
    ]
    padding = _integers(attrs.padding)
    half = len(padding) // 2
    steps = _integers(attrs.strides), _integers(attrs.dilation)
    yield from map(_Axis, *sizes, *steps, padding[:half], padding[half:])


def _integers(values: Any) -> list[int]:
    return [int(value) for value in values]
