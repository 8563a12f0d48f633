"""Concatenations and slices as loop nests that say what they copy, so that they can be avoided.

What is taken at a known place is a slice too, which joins other kernels as a gather does not.

Each lowering fits `relax.transform.LegalizeOps`, and takes TVM's loop nest with an attribute.  A
kernel that lost the attribute, since it was fused with another, is any other kernel.
"""

from typing import Any

import numpy as np
import tvm
from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.ir.rewrite import operator, shape

Expr = Any  # tvm.relax.Expr

_JOINS = "hybridc.joins"  # the axis along which the kernel joins its inputs
_TAKES = "hybridc.takes"  # where in its input the kernel's output begins


def concat(builder: Any, call: Any) -> Expr:
    """Lower `relax.concat` of static shapes and say the axis."""
    lowered = call.op.get_attr("FLegalize")(builder, call)
    axis = call.attrs.axis
    if axis is None or not is_static(call):
        return lowered
    return _marked(builder, lowered, {_JOINS: int(axis) % call.ty.ndim})


def strided_slice(builder: Any, call: Any) -> Expr:
    """Lower `relax.strided_slice`, and say where it begins if it takes neighbours."""
    lowered = call.op.get_attr("FLegalize")(builder, call)
    begin = slice_begin(call)
    return lowered if begin is None else _marked(builder, lowered, {_TAKES: begin})


def take(builder: Any, call: Any) -> Expr:
    """Lower `relax.take`: what lies at one known place without reading where that is."""
    data, indices = call.args
    place: Any = getattr(indices, "value", None)  # of a constant
    axis = call.attrs.axis
    known = isinstance(place, tvm.runtime.Tensor) and int(np.prod(place.shape)) == 1
    if axis is None or not known or not is_static(data):
        return call.op.get_attr("FLegalize")(builder, call)
    at, ranks = int(axis) % data.ty.ndim, len(place.shape)
    number = int(place.numpy().reshape(()))
    if not 0 <= number < shape(data)[at]:
        return call.op.get_attr("FLegalize")(builder, call)

    def taken(source: Any) -> Any:
        return te.compute(
            shape(call),
            lambda *i: source(*i[:at], number, *i[at + ranks :]),
            "taken",
        )

    return builder.call_te(taken, data, primfunc_name_hint="take")


def slice_begin(call: Any) -> list[int] | None:
    """Where a `relax.strided_slice` begins along each axis; None if it skips elements."""
    data, axes, starts, _, *strides = call.args
    if not is_static(call) or not is_static(data):
        return None
    if strides and any(int(step) != 1 for step in strides[0]):
        return None
    extents = shape(data)
    begin = [0] * len(extents)
    for axis, start in zip(map(int, axes), map(int, starts), strict=True):
        extent = extents[axis]
        begin[axis] = min(max(start + extent if start < 0 else start, 0), extent)
    return begin


def joined_axis(func: PrimFunc) -> int | None:
    """The axis along which a kernel joins all its inputs; None if it does something else."""
    axis = func.attrs.get(_JOINS)
    return None if axis is None else int(axis)


def taken_begin(func: PrimFunc) -> tuple[int, ...] | None:
    """Where the box begins that a kernel takes from its input; None if it does something else."""
    begin = func.attrs.get(_TAKES)
    return None if begin is None else tuple(map(int, begin))


def is_static(expr: Expr) -> bool:
    """Whether an expression is one tensor whose shape is known in numbers."""
    extents = getattr(getattr(expr.ty, "shape", None), "values", None)
    return extents is not None and all(isinstance(extent, tirx.IntImm) for extent in extents)


def _marked(builder: Any, lowered: Expr, marks: dict[str, Any]) -> Expr:
    if operator(lowered) == "call_tir":
        var = lowered.args[0]
        builder.update_func(var, builder.get()[var].with_attrs(marks))
    return lowered
