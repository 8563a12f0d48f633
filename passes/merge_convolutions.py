"""Merge convolutions of one tensor whose results are added up.

Networks that are trained with several branches and deployed with one (X. Ding et al., RepVGG, 2021,
https://arxiv.org/abs/2101.03697, section 3.3) are often exported with all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    are_known,
    constant,
    operator,
    rewrite,
    shape,
    with_attributes,
)

Wide = NDArray[np.float64]
_IMAGES = 3  # axes of the least: batch, channels, and one along which windows lie

_LAYOUTS = {
    "nn.conv1d": ("NCW", "OIW"),
    "nn.conv2d": ("NCHW", "OIHW"),
    "nn.conv3d": ("NCDHW", "OIDHW"),
}


@dataclass(frozen=True)
class MergeConvolutions(Pass):
    """Merge convolutions of one tensor whose results are added up.

    The smaller window is added to the larger one around it, whose padding and strides are those of
    both, in float64.  A scale for each channel, as is left of a batch norm, is a window of one
    pixel.  A sum with the tensor itself stays one: kernels add it as they store their results.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite sums two by two, until no branch finds another."""
        return rewrite(module, _merge)


@dataclass(frozen=True)
class _Branch:
    """What is done to `data`: a convolution, or a `scale` for each channel, and a shift."""

    data: Expr
    call: Expr | None
    weight: Wide
    shift: Wide


def _merge(value: Expr, graph: Graph) -> Expr | None:
    if operator(value) != "add" or str(value.ty.dtype) not in ("float32", "float64"):
        return None
    one, other = (_branch(operand, graph) for operand in value.args)
    if one is None or other is None:
        return None
    if any(shape(operand) != shape(value) for operand in value.args):
        return None
    if not one.data.same_as(other.data) or graph.call(one.data, "dequantize") is not None:
        return None
    weight = _sum(one, other)
    kept = one
    if weight is None:
        weight, kept = _sum(other, one), other
    return None if weight is None else _convolution(kept, weight, one.shift + other.shift, value)


def _convolution(branch: _Branch, weight: Wide, shift: Wide, value: Expr) -> Expr:
    """A branch's convolution with another weight, and the shift behind it."""
    assert branch.call is not None, "a scale takes no convolution in"
    dtype = str(value.ty.dtype)
    convolved = with_attributes(branch.call, [branch.data, constant(weight, dtype)])
    if not shift.any():
        return convolved
    extents = [1, shift.size, *[1] * (len(shape(value)) - 2)]
    return relax.op.add(convolved, constant(shift.reshape(extents), dtype))


def _branch(expr: Expr, graph: Graph) -> _Branch | None:
    """The branch that gives a value which nothing else reads."""
    call = graph.call(expr, *_LAYOUTS, "add", "multiply")
    if call is None or not graph.only_use(expr) or not _has_channels(expr):
        return None
    name = operator(call)
    if name in _LAYOUTS:
        return _convolved(call, graph)
    operand, numbers = _per_channel(call, graph)
    if numbers is None or shape(operand) != shape(expr):
        return None
    if name == "multiply":
        return _Branch(operand, None, numbers, np.zeros(numbers.size))
    inner = _branch(operand, graph)
    if inner is None:
        return None
    return _Branch(inner.data, inner.call, inner.weight, inner.shift + numbers)


def _has_channels(expr: Expr) -> bool:
    return len(shape(expr)) >= _IMAGES and are_known(shape(expr)[1:])


def _convolved(call: Expr, graph: Graph) -> _Branch | None:
    """The branch of a convolution with constant weights, of the type that it has."""
    attrs, weight = call.attrs, graph.constant(call.args[1])
    layouts = str(attrs.data_layout), str(attrs.kernel_layout)
    if weight is None or layouts != _LAYOUTS[operator(call)]:
        return None
    if str(attrs.out_layout) not in ("", layouts[0]) or str(weight.dtype) != str(call.ty.dtype):
        return None
    return _Branch(call.args[0], call, weight.astype(np.float64), np.zeros(shape(call)[1]))


def _per_channel(call: Expr, graph: Graph) -> tuple[Expr, Wide | None]:
    """The operand that varies, and the other as a number for each channel if it is that."""
    left, right = call.args
    if graph.constant(right) is None:
        left, right = right, left
    numbers = graph.constant(right)
    rank, channels = len(shape(call)), shape(call)[1]
    if numbers is None or not _lies_along_channels(numbers.shape, rank):
        return left, None
    wide = numbers.astype(np.float64).reshape(-1)
    return left, np.broadcast_to(wide, (channels,)) if wide.size in (1, channels) else None


def _lies_along_channels(extents: Sequence[int], rank: int) -> bool:
    """Whether numbers that broadcast to `rank` axes vary along the second at most."""
    whole = [1] * (rank - len(extents)) + list(extents)
    return all(extent == 1 for axis, extent in enumerate(whole) if axis != 1)


def _sum(large: _Branch, small: _Branch) -> Wide | None:
    """The weight of the `large` branch with that of the `small` one in it; None if it is not."""
    if large.call is None:
        return None
    attrs, window = large.call.attrs, large.weight.shape[2:]
    found = _window(small, large)
    if found is None or found.weight.shape[:2] != large.weight.shape[:2]:
        return None
    if not np.isfinite(found.weight).all() or found.strides != _integers(attrs.strides):
        return None
    inside: list[slice] = []
    for axis, extent in enumerate(found.weight.shape[2:]):
        dilations = int(attrs.dilation[axis]), found.dilation[axis]
        pads = int(attrs.padding[axis]), found.before[axis]
        start = _place((window[axis], extent), dilations, pads)
        if start is None:
            return None
        inside.append(slice(start, start + extent))
    total = large.weight.copy()
    total[:, :, *inside] += found.weight
    return total if np.isfinite(total.astype(str(large.call.ty.dtype))).all() else None


@dataclass(frozen=True)
class _Window:
    """A branch's weight, and for each axis of images the padding before, stride and dilation."""

    weight: Wide
    before: list[int]
    strides: list[int]
    dilation: list[int]


def _window(branch: _Branch, large: _Branch) -> _Window | None:
    """A branch as a window of as many groups as the `large` one has; None if it has others."""
    assert large.call is not None, "a scale takes no convolution in"
    groups, axes = int(large.call.attrs.groups), large.weight.ndim - 2
    if branch.call is None:
        weight = _diagonal(branch.weight, large.weight.shape, groups)
        return None if weight is None else _Window(weight, [0] * axes, [1] * axes, [1] * axes)
    attrs = branch.call.attrs
    if int(attrs.groups) != groups:
        return None
    before = _integers(attrs.padding)[:axes]
    return _Window(branch.weight, before, _integers(attrs.strides), _integers(attrs.dilation))


def _place(windows: tuple[int, int], dilations: tuple[int, int], pads: tuple[int, int]) -> Any:
    """Which tap of one window is the first of the other along an axis; None if it is not in it."""
    start, rest = divmod(pads[0] - pads[1], dilations[0])
    apart = windows[1] > 1 and dilations[0] != dilations[1]
    outside = start < 0 or start + windows[1] > windows[0]
    return None if rest or apart or outside else start


def _diagonal(scale: Wide, extents: Sequence[int], groups: int) -> Wide | None:
    """A scale for each channel as a weight of one pixel; None where others come in than go out."""
    outputs, inputs, *window = extents
    if outputs != inputs * groups or scale.size != outputs:
        return None
    weight = np.zeros((outputs, inputs, *[1] * len(window)))
    channels = np.arange(outputs)
    weight[channels, channels % inputs] = scale.reshape(-1, *[1] * len(window))
    return weight


def _integers(values: Any) -> list[int]:
    return [int(value) for value in values]
