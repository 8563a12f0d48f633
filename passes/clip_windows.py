"""Take from the windows of convolutions what never lies on their image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

_CONVOLUTIONS = ("nn.conv1d", "nn.conv2d", "nn.conv3d")


@dataclass(frozen=True)
class ClipWindows(Pass):
    """Take from the windows of convolutions what never lies on their image.

    A window that is larger than its image, or whose dilation is, has edges that read nothing but
    padding, wherever it stands: a 3x3x3 window on a volume of one slice is one of 1x3x3, and a 3x3
    window with dilation 12 on an image of 8x8 is one pixel.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Clip the windows of convolutions along every axis whose size is known."""
        return rewrite(module, _clip)


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
        first = tap * self.dilation - self.before
        return any(0 <= first + at * self.stride < self.size for at in range(self.made))

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
