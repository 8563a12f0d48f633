"""The loop nest of a depthwise convolution of volumes, channels last."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.tensor_expressions import (
    computed,
    extents,
    finished,
    product_of,
    reduced,
    tensor,
)

KIND = "depthwise-conv3d"


@dataclass(frozen=True)
class Conv3d:
    """The attributes of a 3-D convolution; `padding` is front, top, left, back, bottom, right."""

    strides: tuple[int, int, int]
    padding: tuple[int, ...]
    dilation: tuple[int, int, int]

    def output_size(self, size: Sequence[int], window: Sequence[int]) -> list[int]:
        """Depth, height and width of the output for an input of `size`."""
        pads = [self.padding[i] + self.padding[3 + i] for i in range(3)]
        reach = [self.dilation[i] * (window[i] - 1) + 1 for i in range(3)]
        return [(size[i] + pads[i] - reach[i]) // self.strides[i] + 1 for i in range(3)]


def depthwise_conv3d(
    shape: Sequence[int], weight_shape: Sequence[int], conv: Conv3d, dtype: str
) -> PrimFunc:
    """Depthwise convolution of x `[N, D, H, W, C]` with weights `[KD, KH, KW, C]`."""
    *window, channels = weight_shape
    batch, *size, _ = shape
    made = [batch, *conv.output_size(size, window), channels]
    x = tensor(shape, "x", dtype)
    w = tensor(weight_shape, "weight", dtype)
    padded = _padded(x, conv.padding)
    taps = [reduced(extent, f"k{axis}") for extent, axis in zip(window, "dhw", strict=True)]

    def element(n: Any, *index: Any) -> Any:
        *place, c = index
        read = [
            at * stride + tap * dilation
            for at, stride, tap, dilation in zip(
                place, conv.strides, taps, conv.dilation, strict=True
            )
        ]
        return te.sum(padded[n, *read, c] * w[*taps, c], axis=taps)

    product = computed(
        made, element, name="product", attrs=product_of(KIND, 2 * prod(made) * prod(window))
    )
    out = computed(made, lambda *index: product[index], name="output")
    return finished([x, w, out])


def _padded(x: Any, padding: Sequence[int]) -> Any:
    """Surround the volumes of x by zeros."""
    if not any(padding):
        return x
    batch, *size, channels = extents(x)
    before, behind = padding[:3], padding[3:]

    def element(n: Any, *index: Any) -> Any:
        *place, c = index
        read = [at - pad for at, pad in zip(place, before, strict=True)]
        inside = [
            bound
            for at, pad, extent in zip(place, before, size, strict=True)
            for bound in (at >= pad, at < extent + pad)
        ]
        return tirx.if_then_else(tirx.all(*inside), x[n, *read, c], tirx.const(0, x.dtype))

    padded = [pad + extent + rest for pad, extent, rest in zip(before, size, behind, strict=True)]
    return computed((batch, *padded, channels), element, name="pad")
