"""Write transposed convolutions as sub-pixel convolutions.

A transposed convolution of stride s computes s x s interleaved images, one for each place of an
output pixel between the input's pixels.  Each is an ordinary convolution with every s-th weight
(Shi et al., "Is the deconvolution layer the same as a convolutional layer?", arXiv:1609.07009).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.rewrite import Expr, Graph, operator, rewrite, shape


@dataclass(frozen=True)
class SubpixelConvolution(Pass):
    """Write transposed convolutions as sub-pixel convolutions: no multiplications by zero.

    The images of all places are computed by one convolution, side by side in its channels, and
    then interleaved.  Takes the layout NHWC, which `layout` makes.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every transposed convolution."""
        return rewrite(module, _subpixel)


@dataclass(frozen=True)
class _Axis:
    """One axis of the image: `taps` weights for each of `stride` places.

    The convolution gives `pixels`; of what is interleaved, `crop` lie before the `output`.
    """

    stride: int
    taps: int
    pad: tuple[int, int]
    pixels: int
    crop: int
    output: int


def _axis(size: int, kernel: int, stride: int, left: int, output: int) -> _Axis:
    # Output pixel j is pixel j + left of the full result, which is place (j + left) % stride of
    # the input pixels around (j + left) // stride.
    taps = -(-kernel // stride)
    first = min(left // stride, taps - 1)
    last = -(-(output + left) // stride)
    pad = (taps - 1 - first, max(0, last - size))
    pixels = size + sum(pad) - taps + 1
    return _Axis(stride, taps, pad, pixels, left - first * stride, output)


def _subpixel(value: Expr, graph: Graph) -> Expr | None:
    if operator(value) != "nn.conv2d_transpose" or value.attrs.data_layout != "NHWC":
        return None
    attrs, (data, weight) = value.attrs, value.args
    if any(int(step) != 1 for step in attrs.dilation) or attrs.kernel_layout != "IHWO":
        return _channels_first(value)
    padding = [int(width) for width in attrs.padding]
    axes = [
        _axis(shape(data)[i + 1], shape(weight)[i + 1], stride, padding[i], shape(value)[i + 1])
        for i, stride in enumerate(int(stride) for stride in attrs.strides)
    ]
    groups = int(attrs.groups)
    convolved = relax.op.nn.conv2d(
        data,
        _kernel(weight, axes, groups),
        padding=[*(axis.pad[0] for axis in axes), *(axis.pad[1] for axis in axes)],
        groups=groups,
        data_layout="NHWC",
        kernel_layout="OHWI",
        out_dtype=attrs.out_dtype,
    )
    return _cropped(_interleaved(convolved, value, axes, groups), axes)


def _kernel(weight: Expr, axes: Sequence[_Axis], groups: int) -> Expr:
    """IHWO weights as OHWI, the outputs ordered by group, place and channel."""
    inputs, height, width, outputs = shape(weight)
    tall, wide = axes
    missing = (tall.taps * tall.stride - height, wide.taps * wide.stride - width)
    widths = [0, 0, 0, missing[0], 0, missing[1], 0, 0]
    padded = relax.op.nn.pad(weight, widths) if any(missing) else weight
    parts = [groups, inputs // groups, tall.taps, tall.stride, wide.taps, wide.stride, outputs]
    turned = relax.op.flip(relax.op.flip(relax.op.reshape(padded, parts), 2), 4)
    ordered = relax.op.permute_dims(turned, [0, 3, 5, 6, 2, 4, 1])
    channels = groups * tall.stride * wide.stride * outputs
    return relax.op.reshape(ordered, [channels, tall.taps, wide.taps, inputs // groups])


def _interleaved(convolved: Expr, value: Expr, axes: Sequence[_Axis], groups: int) -> Expr:
    """The images in the channels, side by side, as one image."""
    tall, wide = axes
    if tall.stride == wide.stride == 1:
        return convolved
    batch, _, _, channels = shape(value)
    parts = [tall.pixels, wide.pixels, groups, tall.stride, wide.stride, channels // groups]
    split = relax.op.reshape(convolved, [batch, *parts])
    places = relax.op.permute_dims(split, [0, 1, 4, 2, 5, 3, 6])
    size = [tall.pixels * tall.stride, wide.pixels * wide.stride]
    return relax.op.reshape(places, [batch, *size, channels])


def _cropped(image: Expr, axes: Sequence[_Axis]) -> Expr:
    if all(axis.pixels * axis.stride == axis.output for axis in axes):
        return image
    begins = [axis.crop for axis in axes]
    ends = [axis.crop + axis.output for axis in axes]
    return relax.op.strided_slice(image, [1, 2], begins, ends)


def _channels_first(value: Expr) -> Expr:
    """In the layout for which TVM has a loop nest."""
    attrs, (data, weight) = value.attrs, value.args
    transposed = relax.op.nn.conv2d_transpose(
        relax.op.permute_dims(data, [0, 3, 1, 2]),
        relax.op.permute_dims(weight, [0, 3, 1, 2]),
        strides=attrs.strides,
        padding=attrs.padding,
        output_padding=attrs.output_padding,
        dilation=attrs.dilation,
        groups=attrs.groups,
        out_dtype=attrs.out_dtype,
    )
    return relax.op.permute_dims(transposed, [0, 2, 3, 1])
