"""Turn 3-D convolutions into 2-D ones, over the slices of a volume."""

from dataclasses import dataclass, replace
from functools import partial, reduce
from math import prod
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    are_known,
    constant,
    operator,
    rewrite,
    shape,
    updated,
)
from hybridc.compiler.kernels.convolutions import volumes

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
    2-D convolution adds them up.  A window of one pixel, which moves along the depth alone, has its
    volume as one image instead, whose columns are the pixels of a slice.  Where each channel is
    convolved alone, more channels would make it a convolution of groups: fp32 with constant weights
    has a kernel of its own, which joins the module; else each tap of the depth is a convolution,
    and these are added up.  A transposed convolution computes the slices for each
    position along the depth as channels, and adds up those that overlap.  Slices are joined
    channels last, as `layout` makes the convolutions: the transposes around these then cancel out.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the convolutions in the layout of ONNX and PyTorch, NCDHW."""
        builder = relax.BlockBuilder(module)
        made = rewrite(module, partial(_lift, builder=builder))
        functions = builder.get().functions_items()
        kernels = {var: func for var, func in functions if isinstance(func, tirx.PrimFunc)}
        return module if made is module else updated(made, kernels)


def _lift(value: Expr, graph: Graph, builder: Any) -> Expr | None:
    name = operator(value)
    if name not in ("nn.conv3d", "nn.conv3d_transpose"):
        return None
    transposed = name == "nn.conv3d_transpose"
    layouts = value.attrs.data_layout, value.attrs.kernel_layout
    if layouts != ("NCDHW", "IODHW" if transposed else "OIDHW"):
        return None
    if 0 in shape(value.args[0]):
        return None  # in what a reshape is given, 0 is the extent there was
    if transposed:
        return _transposed(value)
    kernel = _alone(value, graph, builder)
    return _convolved(value) if kernel is None else kernel


@dataclass(frozen=True)
class _Window:
    """A 3-D convolution's attributes: along the depth, and those of images."""

    groups: int
    stride: int
    dilation: int
    front: int
    back: int
    strides: list[int]
    dilations: list[int]
    padding: list[int]
    out_dtype: Any

    @property
    def stays(self) -> bool:
        """Whether images keep their size under a window of one pixel."""
        return self.strides == [1, 1] and not any(self.padding)


def _window(attrs: Any) -> _Window:
    front, top, left, back, bottom, right = _integers(attrs.padding)
    stride, *strides = _integers(attrs.strides)
    dilation, *dilations = _integers(attrs.dilation)
    padding = [top, left, bottom, right]
    groups, out = int(attrs.groups), attrs.out_dtype
    return _Window(groups, stride, dilation, front, back, strides, dilations, padding, out)


def _of_axes(values: list[int]) -> tuple[int, int, int]:
    depth, height, width = values
    return depth, height, width


def _alone(value: Expr, graph: Graph, builder: Any) -> Expr | None:
    """The kernel that convolves each channel alone, over several slices; None for others.

    What was quantised is multiplied as integers, by convolutions of images.
    """
    data, weight = value.args
    taps, attrs = graph.constant(weight), value.attrs
    types = {str(tensor.ty.dtype) for tensor in (data, weight, value)}
    if taps is None or types != {"float32"} or not are_known(shape(data)):
        return None
    channels = shape(data)[1]
    if not taps.shape[0] == channels == int(attrs.groups) > 1 or taps.shape[2] == 1:
        return None
    if graph.call(data, "dequantize") is not None:
        return None
    strides, padding, dilation = map(_integers, (attrs.strides, attrs.padding, attrs.dilation))
    conv = volumes.Conv3d(_of_axes(strides), tuple(padding), _of_axes(dilation))
    packed = np.ascontiguousarray(taps[:, 0].transpose(1, 2, 3, 0))
    x = op.permute_dims(data, _CHANNELS_LAST)
    extents = [shape(value)[axis] for axis in _CHANNELS_LAST]
    source = [shape(data)[axis] for axis in _CHANNELS_LAST]
    var = builder.add_func(
        volumes.depthwise_conv3d(source, packed.shape, conv, "float32"), "depthwise_conv3d"
    )
    kind = relax.TensorType(extents, "float32")
    made = relax.call_tir(var, [x, constant(packed, "float32")], kind)
    return op.permute_dims(made, _CHANNELS_SECOND)


def _convolved(value: Expr) -> Expr:
    data, weight = value.args
    window = _window(value.attrs)
    outputs, inputs, taps, *reach = shape(weight)
    if taps > 1 and reach == [1, 1] and window.stays:
        return _along_depth(value, window)
    x = op.permute_dims(data, _CHANNELS_LAST)
    if window.front or window.back:
        x = op.nn.pad(x, [0, 0, window.front, window.back, *[0] * 6])
    slices = [_slices(x, value, window, tap) for tap in range(taps)]
    if taps > 1 and inputs == 1 and outputs == window.groups:
        taken = [op.strided_slice(weight, [2], [tap], [tap + 1]) for tap in range(taps)]
        parts = [
            _image(images, op.squeeze(each, [2]), window)
            for images, each in zip(slices, taken, strict=True)
        ]
        convolved = reduce(op.add, parts)
    else:
        convolved = _image(*_joined(slices, value, window.groups), window)
    batch, _, depth, *size = shape(value)
    return _volume(op.permute_dims(convolved, _IMAGE_LAST), [batch, depth, *size, outputs])


def _along_depth(value: Expr, window: _Window) -> Expr:
    """A window of one pixel: images `[B, D, H W, C]`, of which it spans several rows."""
    data, weight = value.args
    outputs, inputs, taps, *_ = shape(weight)
    batch, channels, slices, *size = shape(data)
    images = op.reshape(
        op.permute_dims(data, _CHANNELS_LAST), [batch, slices, prod(size), channels]
    )
    rows = replace(
        window,
        strides=[window.stride, 1],
        dilations=[window.dilation, 1],
        padding=[window.front, 0, window.back, 0],
    )
    convolved = _image(images, op.reshape(weight, [outputs, inputs, taps, 1]), rows)
    extents = [batch, shape(value)[2], *size, outputs]
    return _volume(op.permute_dims(convolved, _IMAGE_LAST), extents)


def _slices(x: Expr, value: Expr, window: _Window, tap: int) -> Expr:
    """Images `[B D, H, W, C]`: of each result along the depth, the slice under a tap.

    Those of one volume are taken of images, so that a convolution can read them where they are.
    """
    batch, channels, slices, *size = shape(value.args[0])
    depth, start = shape(value)[2], tap * window.dilation
    end = start + window.stride * (depth - 1) + 1
    alone = batch == 1
    if alone:
        x = op.reshape(x, [slices + window.front + window.back, *size, channels])
    axis, step = int(not alone), window.stride
    taken = op.strided_slice(x, [axis], [start], [end], [step], assume_inbound=True)
    return taken if alone else op.reshape(taken, [batch * depth, *size, channels])


def _joined(slices: list[Expr], value: Expr, groups: int) -> tuple[Expr, Expr]:
    """Images with the slices as channels, those of a group together, and the weight for them."""
    data, weight = value.args
    outputs, inputs, taps, *reach = shape(weight)
    batch, channels, _, *size = shape(data)
    pixels = [batch * shape(value)[2], *size]
    parts = [op.reshape(each, [*pixels, groups, channels // groups]) for each in slices]
    images = op.concat(parts, 4) if taps > 1 else parts[0]
    return (
        op.reshape(images, [*pixels, taps * channels]),
        op.reshape(op.permute_dims(weight, _TAPS_FIRST), [outputs, taps * inputs, *reach]),
    )


def _image(images: Expr, weight: Expr, window: _Window) -> Expr:
    """A 2-D convolution of images with channels last, which gives channels second."""
    return op.nn.conv2d(
        op.permute_dims(images, _IMAGE_SECOND),
        weight,
        strides=window.strides,
        padding=window.padding,
        dilation=window.dilations,
        groups=window.groups,
        out_dtype=window.out_dtype,
    )


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
