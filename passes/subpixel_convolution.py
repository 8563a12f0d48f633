"""Write transposed convolutions as sub-pixel convolutions.

A transposed convolution of stride s computes s x s interleaved images, one for each position of an
output pixel between the input's pixels.  Each is an ordinary convolution with every s-th weight
(Shi et al., "Is the deconvolution layer the same as a convolutional layer?", arXiv:1609.07009).
Dilated weights stay dilated where the stride is 1; elsewhere zeros fill their gaps.

If there are too few output channels to fill vectors, one convolution computes all images side by
side in its channels, each with as many taps as the largest, and they are then copied into place.
Otherwise each is a convolution of its own, which writes its pixels where they belong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import tvm
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Expr, Graph, are_known, operator, rewrite, shape
from hybridc.compiler.target import Target
from hybridc.passes import _transposed_convolutions

# What may be done to each image before they are interleaved as well as to all behind it: functions
# of one element …
_UNARY = {
    *("abs", "clip", "exp", "negative", "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.relu"),
    *("nn.silu", "sigmoid", "sqrt", "tanh"),
}
# … and of one and another operand that is the same for all pixels.
_BINARY = {"add", "divide", "maximum", "minimum", "multiply", "subtract"}


@dataclass(frozen=True)
class SubpixelConvolution(Pass):
    """Write transposed convolutions as sub-pixel convolutions: no multiplications by zero.

    The images of all positions are computed by one convolution, side by side in its channels, and
    then interleaved, or by one convolution each, fused with bias and activation, if an estimate
    says that is faster.  Requires the layout NHWC (`layout`).
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every transposed convolution."""

        def rule(value: Expr, graph: Graph) -> Expr | None:
            found = _subpixel(value, context.target)
            return _ahead(value, graph) if found is None else found

        return rewrite(module, rule)


@dataclass(frozen=True)
class _Axis:
    """One axis of the image: `kernel` weights, `taps` for each of `stride` places.

    Taps are `dilation` pixels apart.  The convolution gives `pixels`; of what is interleaved,
    `crop` lie before the `output`.
    """

    kernel: int
    stride: int
    taps: int
    dilation: int
    pad: tuple[int, int]
    pixels: int
    crop: int
    output: int


def _axis(size: int, kernel: int, steps: tuple[int, int], left: int, output: int) -> _Axis:
    """The axis of a kernel with this stride and dilation, one of which is 1."""
    # Output pixel j is pixel j + left of the full result, which is place (j + left) % stride of
    # the input pixels around (j + left) // stride.
    stride, dilation = steps
    taps = -(-kernel // stride)
    reach = (taps - 1) * dilation
    first = min(left // stride, reach)
    last = -(-(output + left) // stride)
    pad = (reach - first, max(0, last - size))
    pixels = size + sum(pad) - reach
    return _Axis(kernel, stride, taps, dilation, pad, pixels, left - first * stride, output)


def _subpixel(value: Expr, target: Target) -> Expr | None:
    if operator(value) != "nn.conv2d_transpose" or value.attrs.data_layout != "NHWC":
        return None
    attrs, (data, weight) = value.attrs, value.args
    if not are_known([*shape(data)[1:3], *shape(weight)]):
        return _channels_first(value)
    if attrs.kernel_layout != "IHWO":
        return _channels_first(value)
    strides, dilations = ([int(s) for s in steps] for steps in (attrs.strides, attrs.dilation))
    gaps = [d if s > 1 else 1 for s, d in zip(strides, dilations, strict=True)]
    inputs, *size, outputs = shape(weight)
    size = [(extent - 1) * gap + 1 for extent, gap in zip(size, gaps, strict=True)]
    steps = [(s, d // gap) for s, d, gap in zip(strides, dilations, gaps, strict=True)]
    padding, groups = [int(width) for width in attrs.padding], int(attrs.groups)
    sides = [
        (shape(data)[i + 1], size[i], steps[i], padding[i], shape(value)[i + 1]) for i in (0, 1)
    ]
    apart = [found for side in sides if (found := _transposed_convolutions.axis(*side))]
    filled = _filled(weight, gaps)
    if (
        len(apart) == 2
        and prod(strides) > 1
        and _transposed_convolutions.pay(apart, (inputs // groups, outputs), target)
    ):
        return _behind(_transposed_convolutions.convolved(value, filled, apart), value, apart)
    axes = [_axis(*side) for side in sides]
    convolved = relax.op.nn.conv2d(
        data,
        _kernel(filled, (inputs, outputs), axes, groups),
        padding=[*(axis.pad[0] for axis in axes), *(axis.pad[1] for axis in axes)],
        dilation=[axis.dilation for axis in axes],
        groups=groups,
        data_layout="NHWC",
        kernel_layout="OHWI",
        out_dtype=attrs.out_dtype,
    )
    return _cropped(_interleaved(convolved, value, axes, groups), axes)


def _behind(image: Expr, value: Expr, axes: Sequence[_transposed_convolutions.Axis]) -> Expr:
    """The image without what its last phases have too many."""
    _, height, width, _ = shape(value)
    if (height, width) == tuple(axis.pixels * len(axis.phases) for axis in axes):
        return image
    return relax.op.strided_slice(image, [1, 2], [0, 0], [height, width])


def _ahead(value: Expr, graph: Graph) -> Expr | None:
    """An elementwise operator done to images before they are interleaved."""
    name = operator(value)
    if name not in _UNARY | _BINARY:
        return None
    for place, operand in enumerate(value.args[: 2 if name in _BINARY else 1]):
        rows = (
            _transposed_convolutions.alternating(graph.value(operand), graph)
            if graph.only_use(operand)
            else None
        )
        if rows is None or (name in _BINARY and not _same_for_pixels(value.args[1 - place], value)):
            continue
        parts = [[_on(value, place, image) for image in row] for row in rows]
        return _transposed_convolutions.interleaved(parts, shape(rows[0][0]))
    return None


def _on(value: Expr, place: int, image: Expr) -> Expr:
    """The same operator on another operand."""
    operands = [image if i == place else operand for i, operand in enumerate(value.args)]
    return tvm.ir.Call(value.op, operands, value.attrs)


def _same_for_pixels(operand: Expr, value: Expr) -> bool:
    """Whether an operand has one element for each channel at most, and gives the result no axes."""
    extents = shape(operand)
    return len(extents) <= len(shape(value)) and all(extent == 1 for extent in extents[:-1])


def _filled(weight: Expr, gaps: Sequence[int]) -> Expr:
    """IHWO weights, `gaps` apart along height and width, with zeros between them."""
    if list(gaps) == [1, 1]:
        return weight
    inputs, height, width, outputs = shape(weight)
    apart = relax.op.reshape(weight, [inputs, height, 1, width, 1, outputs])
    padded = relax.op.nn.pad(apart, [0, 0, 0, 0, 0, gaps[0] - 1, 0, 0, 0, gaps[1] - 1, 0, 0])
    size = [height * gaps[0], width * gaps[1]]
    ends = [extent - gap + 1 for extent, gap in zip(size, gaps, strict=True)]
    return relax.op.strided_slice(
        relax.op.reshape(padded, [inputs, *size, outputs]), [1, 2], [0, 0], ends
    )


def _kernel(weight: Expr, channels: tuple[int, int], axes: Sequence[_Axis], groups: int) -> Expr:
    """IHWO weights as OHWI, the outputs ordered by group, place and channel."""
    inputs, outputs = channels
    tall, wide = axes
    missing = [axis.taps * axis.stride - axis.kernel for axis in axes]
    widths = [0, 0, 0, missing[0], 0, missing[1], 0, 0]
    padded = relax.op.nn.pad(weight, widths) if any(missing) else weight
    parts = [groups, inputs // groups, tall.taps, tall.stride, wide.taps, wide.stride, outputs]
    turned = relax.op.flip(relax.op.flip(relax.op.reshape(padded, parts), 2), 4)
    ordered = relax.op.permute_dims(turned, [0, 3, 5, 6, 2, 4, 1])
    total = groups * tall.stride * wide.stride * outputs
    return relax.op.reshape(ordered, [total, tall.taps, wide.taps, inputs // groups])


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
