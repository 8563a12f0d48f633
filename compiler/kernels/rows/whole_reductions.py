"""Reductions that keep few elements or none, in two stages, so that each thread has a part.

A rule gives whole rows to threads: the largest number of a tensor is one row, which one thread
would read alone.
"""

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any

from tvm import relax, te, tirx

from hybridc.compiler.ir.rewrite import Expr, operator, shape
from hybridc.compiler.kernels.indexing.joins import is_static
from hybridc.compiler.target import Target

Tensor = Any  # tvm.te.Tensor

# Elements that are worth a second thread: 4 bytes each at 32 a cycle, and one addition of 16 lanes,
# take 10,000 cycles.
_LEAST = 53_000
# Parts at most: each is a row to the second stage, which one thread reduces.
_MOST = 32
# Rows for each thread from which on it does not matter that some have one more.
_EVEN = 4
# TVM's OpPatternKind: elementwise operators that feed it may join it.
_REDUCES = 3
# Of narrower floats what is between the stages would be rounded.
_TYPES = ("float32", "float64", "int32", "int64", "int8", "uint8", "bool")
_REDUCERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"sum": te.sum, "mean": te.sum, "max": te.max, "min": te.min}
)
REDUCTIONS = tuple(_REDUCERS)


def reduction(builder: Any, call: Any, target: Target) -> Expr:
    """Lower one of REDUCTIONS: parts of an axis first, then what these came to."""
    data, name = call.args[0], operator(call)
    split = _split(call, target) if is_static(data) and _keeps_type(call) else None
    if split is None:
        return call.op.get_attr("FLegalize")(builder, call)
    axis, parts = split
    axes, keep = _axes(call), bool(call.attrs.keepdims)

    def kernel(x: Tensor) -> Tensor:
        return _partial(x, axes, axis, parts, _REDUCERS[name])

    first = builder.emit(
        builder.call_te(
            kernel, data, primfunc_name_hint=name, primfunc_attrs={"op_pattern": _REDUCES}
        )
    )
    if name != "mean":
        return getattr(relax.op, name)(first, axes, keep)
    count = prod(shape(data)[each] for each in axes)
    total = builder.emit(relax.op.sum(first, axes, keep))
    return relax.op.divide(total, relax.const(float(count), str(call.ty.dtype)))


def _keeps_type(call: Expr) -> bool:
    dtype = str(call.args[0].ty.dtype)
    floats = operator(call) != "mean" or dtype.startswith("float")
    return dtype in _TYPES and floats and dtype == str(call.ty.dtype)


def _axes(call: Expr) -> list[int]:
    rank = call.args[0].ty.ndim
    given = call.attrs.axis
    return sorted(range(rank) if given is None else {int(axis) % rank for axis in given})


def _split(call: Expr, target: Target) -> tuple[int, int] | None:
    """The axis of which threads share the parts, and how many there are; None if none need."""
    extents, axes = shape(call.args[0]), _axes(call)
    kept = prod(extent for axis, extent in enumerate(extents) if axis not in axes)
    even = kept % target.threads == 0 or kept >= _EVEN * target.threads
    if even or prod(extents) < _LEAST:
        return None
    for axis in axes:
        fitting = [d for d in range(target.threads, _MOST + 1) if extents[axis] % d == 0]
        if fitting:
            return axis, max(fitting)
    return None


def _partial(
    x: Tensor, axes: list[int], axis: int, parts: int, reduce: Callable[..., Any]
) -> Tensor:
    """What each part of an axis comes to; axes that are reduced have an extent of 1."""
    extents = [int(extent) for extent in x.shape]
    size = extents[axis] // parts
    steps = {
        each: te.reduce_axis((_long(0), _long(size if each == axis else extents[each])), "k")
        for each in axes
    }

    def element(*index: Any) -> Any:
        place = [steps.get(each, own) for each, own in enumerate(index)]
        place[axis] = index[axis] * _long(size) + steps[axis]
        return reduce(x(*place), axis=list(steps.values()))

    made = [_long(1 if each in axes else extent) for each, extent in enumerate(extents)]
    made[axis] = _long(parts)
    return te.compute(made, element, name="partial")


def _long(value: int) -> Any:
    return tirx.const(value, "int64")
