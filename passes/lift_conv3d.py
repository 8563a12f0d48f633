"""Turn 3-D convolutions into 2-D ones, over the slices of a volume."""

from dataclasses import dataclass
from typing import Any

from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Expr, Graph, operator, rewrite, shape

op: Any = relax.op

# A volume's channels behind its slices, and back; the same of images.
_CHANNELS_LAST, _CHANNELS_SECOND = [0, 2, 3, 4, 1], [0, 4, 1, 2, 3]
_IMAGE_LAST, _IMAGE_SECOND = [0, 2, 3, 1], [0, 3, 1, 2]
# The depth of a window before its channels.
_TAPS_FIRST = [0, 2, 1, 3, 4]


@dataclass(frozen=True)
class LiftConv3d(Pass):
    """Turn 3-D convolutions into 2-D ones, over the slices of a volume.

    The slices that a window reads along the depth become channels of one image, so that a single
    2-D convolution adds them up.  A transposed convolution computes the slices for each position
    along the depth as channels, and adds up those that overlap.  Slices are joined channels last,
    as `layout` makes the convolutions: the transposes around these then cancel out.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the convolutions in the layout of ONNX and PyTorch, NCDHW."""
        return rewrite(module, _lift)


def _lift(value: Expr, _: Graph) -> Expr | None:
    name = operator(value)
    if name not in ("nn.conv3d", "nn.conv3d_transpose"):
        return None
    transposed = name == "nn.conv3d_transpose"
    layouts = value.attrs.data_layout, value.attrs.kernel_layout
    if layouts != ("NCDHW", "IODHW" if transposed else "OIDHW"):
        return None
    if 0 in shape(value.args[0]):
        return None  # in what a reshape is given, 0 is the extent there was
    return _transposed(value) if transposed else _convolved(value)


def _convolved(value: Expr) -> Expr:
    attrs, (data, weight) = value.attrs, value.args
    groups = int(attrs.groups)
    outputs, inputs, taps, *window = shape(weight)
    batch, channels, _, *size = shape(data)
    _, _, depth, *image = shape(value)
    front, top, left, back, bottom, right = _integers(attrs.padding)
    stride, *strides = _integers(attrs.strides)
    dilation, *dilations = _integers(attrs.dilation)
    x = op.permute_dims(data, _CHANNELS_LAST)
    if front or back:
        x = op.nn.pad(x, [0, 0, front, back, *[0] * 6])
    reach = stride * (depth - 1) + 1
    # The slices of a group's channels lie together.
    parts = [
        op.reshape(
            op.strided_slice(x, [1], [start], [start + reach], [stride], assume_inbound=True),
            [batch * depth, *size, groups, channels // groups],
        )
        for start in range(0, taps * dilation, dilation)
    ]
    images = op.concat(parts, 4) if taps > 1 else parts[0]
    images = op.reshape(images, [batch * depth, *size, taps * channels])
    convolved = op.nn.conv2d(
        op.permute_dims(images, _IMAGE_SECOND),
        op.reshape(op.permute_dims(weight, _TAPS_FIRST), [outputs, taps * inputs, *window]),
        strides=strides,
        padding=[top, left, bottom, right],
        dilation=dilations,
        groups=groups,
        out_dtype=attrs.out_dtype,
    )
    return _volume(op.permute_dims(convolved, _IMAGE_LAST), [batch, depth, *image, outputs])


def _volume(images: Expr, extents: list[int]) -> Expr:
    """Slices `[B D, H, W, C]` as a volume `[B, C, D, H, W]`."""
    return op.permute_dims(op.reshape(images, extents), _CHANNELS_SECOND)


def _transposed(value: Expr) -> Expr:
    attrs, (data, weight) = value.attrs, value.args
    groups = int(attrs.groups)
    channels, outputs, taps, *window = shape(weight)
    batch, _, slices, *size = shape(data)
    _, _, depth, *image = shape(value)
    front, top, left, _, bottom, right = _integers(attrs.padding)
    stride, *strides = _integers(attrs.strides)
    dilation, *dilations = _integers(attrs.dilation)
    images = op.reshape(op.permute_dims(data, _CHANNELS_LAST), [batch * slices, *size, channels])
    kernel = op.reshape(op.permute_dims(weight, _TAPS_FIRST), [channels, taps * outputs, *window])
    transposed = op.nn.conv2d_transpose(
        op.permute_dims(images, _IMAGE_SECOND),
        kernel,
        strides=strides,
        padding=[top, left, bottom, right],
        output_padding=_integers(attrs.output_padding)[1:],
        dilation=dilations,
        groups=groups,
        out_dtype=attrs.out_dtype,
    )
    transposed = op.permute_dims(transposed, _IMAGE_LAST)
    transposed = op.reshape(transposed, [batch, slices, *image, groups, taps, outputs])
    total = None
    for tap in range(taps):
        part = op.strided_slice(transposed, [5], [tap], [tap + 1])
        extents = [batch, slices, *image, groups * outputs]
        part = op.reshape(part, extents)
        spread = _spread(part, extents, (stride, tap * dilation - front), depth)
        total = spread if total is None else op.add(total, spread)
    return op.permute_dims(total, _CHANNELS_SECOND)


def _spread(part: Expr, extents: list[int], place: tuple[int, int], depth: int) -> Expr:
    """Slices `stride` apart from `first` on, among `depth` of which the others are zero."""
    batch, slices, *rest = extents
    stride, first = place
    if stride > 1:
        part = op.reshape(part, [batch, slices, 1, *rest])
        part = op.nn.pad(part, [0, 0, 0, 0, 0, stride - 1, *[0] * 6])
        part = op.reshape(part, [batch, slices * stride, *rest])
    before, behind = max(0, first), max(0, depth - first - slices * stride)
    if before or behind:
        part = op.nn.pad(part, [0, 0, before, behind, *[0] * 6])
    start = max(0, -first)
    return op.strided_slice(part, [1], [start], [start + depth])


def _integers(values: Any) -> list[int]:
    return [int(value) for value in values]
