"""Merge consecutive transposes, and drop those that move nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from tvm import relax, tirx

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

_CHANNELS_FIRST = [0, 3, 1, 2]  # of an image whose channels are last


@dataclass(frozen=True)
class MergeTransposes(Pass):
    """Merge consecutive transposes, and drop those that move nothing.

    A pad between them may stay, and so may reshapes, if the last one only splits the leading axis,
    which is not moved: exporters join axes to transpose the keys of attention.  An image that is
    enlarged and then transposed to channels first is transposed before it is enlarged.  With
    `views`, a transpose that moves only axes of extent 1 becomes a reshape, which costs nothing,
    but which layouts and patterns cannot pass.
    """

    views: bool = False

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite until no two transposes are left that could be one."""
        return rewrite(module, self._merge)

    def _merge(self, value: Expr, graph: Graph) -> Expr | None:
        if _has_nothing(value):
            return None
        match operator(value):
            case "permute_dims" if self.views and _moves_nothing(value):
                return relax.op.reshape(value.args[0], shape(value))
            case "permute_dims":
                return _merge_transposes(value, graph)
            case "reshape":
                return _merge_reshapes(value, graph)
            case _:
                return None


def _has_nothing(value: Expr) -> bool:
    """Whether a tensor has no elements: a reshape takes a size of 0 as that of its operand."""
    sizes = getattr(getattr(value.ty, "shape", None), "values", ())
    return any(isinstance(size, tirx.IntImm) and int(size) == 0 for size in sizes)


def _moves_nothing(value: Expr) -> bool:
    """Whether a transpose keeps the order of the axes that are longer than 1."""
    extents = shape(value.args[0])
    long = [axis for axis in _axes(value) if extents[axis] != 1]
    return long == sorted(long)


def _merge_transposes(value: Expr, graph: Graph) -> Expr | None:
    source, axes = value.args[0], _axes(value)
    if (resized := _resized_behind(source, axes, graph)) is not None:
        return resized
    inner, pad = graph.call(source, "permute_dims"), graph.call(source, "nn.pad")
    if pad is not None:
        return _merge_around_pad(pad, axes, graph) if graph.only_use(source) else None
    if inner is not None:
        source, axes = inner.args[0], [_axes(inner)[axis] for axis in axes]
    if axes == sorted(axes):
        return source
    return None if inner is None else relax.op.permute_dims(source, axes)


def _resized_behind(source: Expr, axes: Sequence[int], graph: Graph) -> Expr | None:
    """An image resized channels first, instead of turned when it is larger.

    In one kernel with the transpose each element would be gathered by itself: 21 channels from
    64x64 to 256x256 took 2.6 ms (Zen 3, 2 threads).
    """
    resize = graph.call(source, "image.resize2d")
    if resize is None or str(resize.attrs.layout) != "NHWC" or list(axes) != _CHANNELS_FIRST:
        return None
    before, behind = (shape(image)[1:3] for image in (resize.args[0], resize))
    if not are_known((*before, *behind)) or prod(behind) < prod(before):
        return None
    if not graph.only_use(source):
        return None
    image = relax.op.permute_dims(resize.args[0], axes)
    return with_attributes(resize, [image, *resize.args[1:]], layout="NCHW")


def _merge_around_pad(pad: Expr, axes: Sequence[int], graph: Graph) -> Expr | None:
    """The transposes before and behind a pad as one before it."""
    inner = graph.call(pad.args[0], "permute_dims")
    if inner is None:
        return None
    source = relax.op.permute_dims(inner.args[0], [_axes(inner)[axis] for axis in axes])
    widths = np.reshape([int(width) for width in pad.attrs.pad_width], (-1, 2))[list(axes)]
    return with_attributes(pad, [source], pad_width=widths.ravel().tolist())


def _merge_reshapes(value: Expr, graph: Graph) -> Expr | None:
    """`reshape(permute(reshape(x)))`, or `reshape(reshape(x))`, as one operator."""
    transpose = graph.call(value.args[0], "permute_dims")
    first = graph.call(value.args[0], "reshape", "expand_dims", "squeeze")
    if first is not None:
        return relax.op.reshape(first.args[0], shape(value))
    if transpose is None or (joined := graph.call(transpose.args[0], "reshape")) is None:
        return None
    axes = _axes(transpose)
    leading = _parted_axes(shape(transpose), shape(value))
    if leading is None or axes[0] != 0:
        return None
    parted = (*shape(value)[:leading], *shape(joined)[1:])
    whole = [*range(leading), *(axis + leading - 1 for axis in axes[1:])]
    source = joined.args[0]
    if shape(source) != parted:
        source = relax.op.reshape(source, parted)
    return relax.op.permute_dims(source, whole)


def _parted_axes(before: Sequence[int], after: Sequence[int]) -> int | None:
    """Into how many axes a reshape parts the first, leaving the others; None if it does more."""
    parts = len(after) - len(before) + 1
    kept = parts > 0 and tuple(after[parts:]) == tuple(before[1:])
    return parts if kept and prod(after[:parts]) == before[0] else None


def _axes(call: Expr) -> list[int]:
    rank = len(shape(call.args[0]))
    if call.attrs.axes is None:
        return list(range(rank))[::-1]
    return [int(axis) % rank for axis in call.attrs.axes]
