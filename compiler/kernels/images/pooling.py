"""The loop nest of average pooling, by multiplication.

TVM divides every sum, by a number of elements that it counts anew where padding does not count.
That takes longer than the sum.  Here the share of an element is in a table, with a line for each
kind of row: those at the edges, whose windows reach into the padding, and all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tvm import relax, te, tirx, topi
from tvm.runtime import tensor

from hybridc.compiler.ir.rewrite import Expr, shape
from hybridc.compiler.kernels.indexing.joins import is_static
from hybridc.compiler.model import Array

Tensor = Any  # tvm.te.Tensor

# TVM's OpPatternKind.
_OUT_ELEMENTWISE_FUSABLE = 4


@dataclass(frozen=True)
class _Axis:
    """An axis of the image at `place`: windows of `window` elements, `before` of padding."""

    place: int
    size: int
    made: int
    window: int
    stride: int
    dilation: int
    before: int

    @property
    def behind(self) -> int:
        """Elements that windows read behind the image."""
        reach = (self.made - 1) * self.stride + (self.window - 1) * self.dilation + 1
        return max(0, reach - self.size - self.before)

    @property
    def counts(self) -> Array:
        """How many elements of each window lie inside; 1 where none does."""
        first = np.arange(self.made)[:, None] * self.stride - self.before
        index = first + np.arange(self.window)[None, :] * self.dilation
        inside = ((index >= 0) & (index < self.size)).sum(1)
        return np.asarray(np.maximum(inside, 1))


def avg_pool2d(builder: Any, call: Any) -> Expr:
    """Lower `relax.nn.avg_pool2d` in float32: sums times what a table has for their places."""
    data, attrs = call.args[0], call.attrs
    layout = str(attrs.layout)
    plain = is_static(data) and sorted(layout) == sorted("NCHW") and str(data.ty.dtype) == "float32"
    if not plain or 0 in shape(data):
        return call.op.get_attr("FLegalize")(builder, call)
    axes = _axes(call, layout)
    if attrs.count_include_pad:
        counts = np.full([axis.made for axis in axes], prod(axis.window for axis in axes))
    else:
        counts = np.outer(*(axis.counts for axis in axes))
    kinds, which = np.unique(counts, axis=0, return_inverse=True)
    shares = (1 / kinds).astype("float32")
    if kinds.size == kinds[0].size and (kinds == kinds[0, 0]).all():
        tables: list[Array] = []
    else:
        tables = [which.reshape(-1).astype("int32"), shares]

    def kernel(x: Tensor, *tables: Tensor) -> Tensor:
        return _averages(x, tables, axes, shape(call), float(shares[0, 0]))

    # TVM takes places from a table for opaque; what comes behind the window may join it.
    return builder.call_te(
        kernel,
        data,
        *(relax.const(tensor(each), str(each.dtype)) for each in tables),
        primfunc_name_hint="avg_pool2d",
        primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
    )


def _axes(call: Any, layout: str) -> list[_Axis]:
    attrs, given, made = call.attrs, shape(call.args[0]), shape(call)
    padding = [int(width) for width in attrs.padding]
    return [
        _Axis(
            place := layout.index(name),
            given[place],
            made[place],
            int(attrs.pool_size[i]),
            int(attrs.strides[i]),
            int(attrs.dilation[i]),
            padding[i],
        )
        for i, name in enumerate("HW")
    ]


def _averages(
    x: Tensor, tables: Sequence[Tensor], axes: Sequence[_Axis], made: Sequence[int], share: float
) -> Tensor:
    before, behind = [0] * len(made), [0] * len(made)
    for axis in axes:
        before[axis.place], behind[axis.place] = axis.before, axis.behind
    padded = topi.nn.pad(x, before, behind, 0.0, name="pad") if any(before + behind) else x
    taps = [
        te.reduce_axis((_long(0), _long(axis.window)), name=f"k{i}") for i, axis in enumerate(axes)
    ]

    def element(*index: Any) -> Any:
        place = list(index)
        for axis, tap in zip(axes, taps, strict=True):
            place[axis.place] = index[axis.place] * axis.stride + tap * axis.dilation
        return te.sum(padded(*place), axis=taps)

    extents = [_long(extent) for extent in made]
    sums = te.compute(extents, element, name="sums")
    tall, wide = (axis.place for axis in axes)

    def average(*index: Any) -> Any:
        if not tables:
            return sums(*index) * tirx.const(share, "float32")
        kinds, shares = tables
        return sums(*index) * shares(kinds(index[tall]).astype("int64"), index[wide])

    return te.compute(extents, average, name="averages")


def _long(value: int) -> Any:
    return tirx.const(value, "int64")
