"""Loop nests of depthwise convolutions of images that lie channels first, plane by plane."""

from collections.abc import Sequence
from typing import Any

from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.kernels.tensor_expressions import (
    computed,
    counted,
    finished,
    product_of,
    reduced,
    tensor,
)

# The kind of product, and the annotation of its strides, dilation and padding at top and left.
KIND = "depthwise-planes"
WINDOW = "hybridc.window"


def conv2d(shape: Sequence[int], weight_shape: Sequence[int], conv: Conv2d, dtype: str) -> PrimFunc:
    """Depthwise convolution of x `[N, C, H, W]`, weights `[O, KH, KW]`; O/C results a channel."""
    batch, channels, height, width = shape
    results = weight_shape[0]
    kernel_h, kernel_w = weight_shape[1:]
    size = conv.output_size((height, width), (kernel_h, kernel_w))
    (stride_h, stride_w), (dilate_h, dilate_w) = conv.strides, conv.dilation
    top, left = conv.padding[:2]
    x = tensor(shape, "x", dtype)
    w = tensor(weight_shape, "weight", dtype)
    kh = reduced(kernel_h, "kh")
    kw = reduced(kernel_w, "kw")

    def padded(n: Any, c: Any, y: Any, v: Any) -> Any:
        inside = tirx.all(y >= 0, y < height, v >= 0, v < width)
        return tirx.if_then_else(inside, x[n, c, y, v], tirx.const(0, dtype))

    def source(c: Any) -> Any:
        return c if results == channels else c // (results // channels)

    def element(n: Any, c: Any, h: Any, v: Any) -> Any:
        row, column = h * stride_h + kh * dilate_h - top, v * stride_w + kw * dilate_w - left
        return te.sum(padded(n, source(c), row, column) * w[c, kh, kw], axis=[kh, kw])

    shape_out = (batch, results, *size)
    flops = 2 * counted(*shape_out) * kernel_h * kernel_w
    window = [stride_h, stride_w, dilate_h, dilate_w, top, left]
    marks = {**product_of(KIND, flops), WINDOW: window}
    product = computed(shape_out, element, name="product", attrs=marks)
    out = computed(shape_out, lambda *index: product[index], name="output")
    return finished([x, w, out])
