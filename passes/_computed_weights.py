"""Convolutions whose weights the model computes, such as those that a style modulates.

Operators pack the weights as the model runs, in the order that the kernels of constant ones read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tvm import relax

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.ir.rewrite import Expr, are_known, opened, shape
from hybridc.compiler.kernels.products import contractions, vector_width
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.kernels.products.packing import round_up
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target
from hybridc.passes import _convolutions

op: Any = relax.op

_TYPE = "float32"


@dataclass(frozen=True)
class Convolution:
    """A kernel, by its name, and the weights that it reads."""

    name: str
    kernel: PrimFunc
    weight: Expr


def replaced(call: Expr, target: Target, builder: Any) -> Expr | None:
    """The call of the kernel that the builder holds for a convolution, or None."""
    made = of_call(call, target)
    if made is None:
        return None
    var = builder.add_func(made.kernel, made.name)
    return relax.call_tir(var, [call.args[0], made.weight], call.ty)


def of_call(call: Expr, target: Target) -> Convolution | None:
    """The kernel for a convolution that is channels last, of float32; None for others."""
    data, weight = call.args
    types = {str(tensor.ty.dtype) for tensor in (data, weight, call)}
    if types != {_TYPE} or not are_known([*shape(data)[1:], *shape(weight)]):
        return None
    if not _convolutions.is_channels_last(call):
        return None
    return _depthwise(call) if _convolutions.is_depthwise(call) else _direct(call, target)


def _depthwise(call: Expr) -> Convolution:
    """Each channel's taps behind each other, as `[KH, KW, O]`."""
    data, weight = call.args
    outputs, *window, _ = shape(weight)
    taps = op.permute_dims(op.reshape(weight, [outputs, *window]), [1, 2, 0])
    source, conv = opened(shape(data)), _attributes(call)
    kernel = contractions.depthwise_conv2d(source, (*window, outputs), conv, _TYPE, _TYPE)
    return Convolution("depthwise_conv2d", kernel, taps)


def _direct(call: Expr, target: Target) -> Convolution:
    """Vectors of one group's output channels; those that are missing in the last are zeros."""
    data, weight = call.args
    outputs, *window, inputs = shape(weight)
    groups = int(call.attrs.groups)
    wanted = outputs // groups
    lanes = vector_width.lanes_for(wanted, 1, target)
    made = round_up(wanted, lanes)
    if vector_width.holds_groups(inputs, wanted, groups, lanes):
        made = wanted
    missing = made - wanted
    apart = op.reshape(weight, [groups, wanted, *window, inputs])
    padded = op.nn.pad(apart, [0, 0, 0, missing, *[0] * 6]) if missing else apart
    whole = [groups * made // lanes, lanes, *window, inputs]
    packed = op.permute_dims(op.reshape(padded, whole), [0, 2, 3, 4, 1])
    source, conv = opened(shape(data)), _attributes(call)
    if conv.pointwise and groups == 1 and prod(window) == 1:
        flat = [whole[0], inputs, lanes]
        kernel = contractions.dense(source, _like(flat), outputs, _TYPE, _TYPE)
        return Convolution("dense", kernel, op.reshape(packed, flat))
    form = _like([whole[0], *window, inputs, lanes])
    kernel = contractions.conv2d(source, form, outputs, conv, _TYPE, _TYPE)
    return Convolution("conv2d", kernel, packed)


def _attributes(call: Expr) -> Conv2d:
    return _convolutions.attributes(call, _like(shape(call.args[1])))


def _like(extents: Sequence[int]) -> Array:
    """Weights of which only the shape and the type matter."""
    return np.broadcast_to(np.zeros((), _TYPE), extents)
