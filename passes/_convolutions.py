"""What passes read of a convolution that is channels last."""

from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler import strips
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    are_known,
    computed,
    opened,
    operator,
    shape,
    with_attributes,
)
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.model import Array


def is_channels_last(call: Expr) -> bool:
    """Whether images are `[N, H, W, C]` and weights `[O, KH, KW, I]`."""
    layouts = str(call.attrs.data_layout), str(call.attrs.kernel_layout)
    return layouts == ("NHWC", "OHWI")


def is_depthwise(call: Expr) -> bool:
    """Whether each channel of an image, channels last, is convolved for itself."""
    return bool(int(call.attrs.groups) == shape(call.args[0])[3] > 1)


def taps(weight: Array) -> Array:
    """Depthwise weights `[O, KH, KW, 1]` as `[KH, KW, O]`."""
    return np.ascontiguousarray(weight[..., 0].transpose(1, 2, 0))


def attributes(call: Expr, weight: Array) -> Conv2d:
    """What a convolution with weights `[O, KH, KW, I]` does."""
    attrs = call.attrs
    return Conv2d(
        strides=integers(attrs.strides),
        padding=integers(attrs.padding),
        dilation=integers(attrs.dilation),
        groups=int(attrs.groups),
        inputs=weight.shape[3],
    )


def padded(call: Expr, graph: Graph) -> tuple[Expr, Any, int]:
    """What a convolution reads, how it pads that, and with what.

    The padding of quantised activations is a pad of its own before it, with their zero point.
    """
    pad = graph.call(call.args[0], "nn.pad")
    own = call.args[0], integers(call.attrs.padding), 0
    if pad is None or str(call.args[0].ty.dtype) != "uint8" or any(own[1]):
        return own
    _, _, top, bottom, left, right, _, _ = widths = integers(pad.attrs.pad_width)
    if pad.attrs.pad_mode != "constant" or any([*widths[:2], *widths[6:]]):
        return own
    return pad.args[0], (top, left, bottom, right), int(pad.attrs.pad_value)


def pads_apart(value: Expr, graph: Graph) -> Expr | None:
    """A convolution of images of open size without padding, behind a pad of its own.

    Strips of what it makes then read strips of what it reads; at an end of an image they would not.
    """
    if operator(value) != "nn.conv2d" or not is_open_image(value, graph):
        return None
    if not any(integers(value.attrs.padding)):
        return None
    data, weight = value.args
    top, left, bottom, right = integers(value.attrs.padding)
    padded = relax.op.nn.pad(data, [0, 0, top, bottom, left, right, 0, 0])
    return with_attributes(value, [padded, weight], padding=[0, 0, 0, 0])


def is_open_image(call: Expr, graph: Graph) -> bool:
    """Whether a convolution of float32 with constant weights, channels last, is of open images."""
    tensors = [*call.args, call]
    if {str(tensor.ty.dtype) for tensor in tensors} != {"float32"}:
        return False
    if graph.constant(call.args[1]) is None or not is_channels_last(call):
        return False
    image = shape(call.args[0])
    return not are_known(image[1:3]) and are_known(image[3:])


def has_kernel(call: Expr, graph: Graph) -> bool:
    """Whether kernels know the sizes of a convolution's images as far as they have to."""
    return are_known(shape(call.args[0])[1:]) or is_open_image(call, graph)


def sized(call: Expr, data: Expr, conv: Conv2d) -> tuple[tuple[Any, ...], Conv2d]:
    """The shape of a kernel's images, and the convolution with the sizes that it makes if open."""
    if are_known(shape(data)[1:]):
        return opened(shape(data)), conv
    (source, made), given = computed(shape(data), shape(call))
    return source, replace(conv, made=(made[1], made[2]), given=tuple(given))


def given(kernel: PrimFunc, data: Expr) -> list[Any]:
    """The open sizes that a kernel is given as numbers, which its images are computed of."""
    names = [param.name for param in kernel.params if not strips.is_buffer(param)]
    sizes: list[Any] = [size for size in shape(data) if not are_known([size])]
    found = {var.name: var for size in sizes for var in tirx.analysis.undefined_vars(size)}
    return [found[name] for name in names]


def integers(values: Any) -> Any:
    """The numbers of an attribute."""
    return tuple(int(value) for value in values)
