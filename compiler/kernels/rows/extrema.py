"""Loop nests for the places of maxima and minima.

TVM reduces a pair of value and place at once, which stays scalar code.  Here the extreme value is
found first, and then the first place that holds it: two reductions of plain vectors.
"""

from collections.abc import Callable
from typing import Any

from tvm import te, tirx, topi

Expr = Any  # tvm.relax.Expr
Tensor = Any  # tvm.te.Tensor

# Places are counted in 32 bits, as many lanes as float32 has.
_LARGEST = 2**31 - 1


def argmax(builder: Any, call: Any) -> Expr:
    """Lower `relax.argmax` over one axis: the first place of the largest element.

    A NaN counts as larger than any number, as in numpy and torch.
    """
    return _place(builder, call, topi.max)


def argmin(builder: Any, call: Any) -> Expr:
    """Lower `relax.argmin` over one axis: the first place of the smallest element, or of a NaN."""
    return _place(builder, call, topi.min)


def _place(builder: Any, call: Any, extreme: Callable[..., Tensor]) -> Expr:
    data, axis = call.args[0], call.attrs.axis
    if axis is None or not _takes(data):
        return call.op.get_attr("FLegalize")(builder, call)
    shape = [int(extent) for extent in data.ty.shape.values]
    position = int(axis) % len(shape)
    dtype, keep = str(call.ty.dtype), bool(call.attrs.keepdims)

    def kernel(x: Tensor) -> Tensor:
        best = extreme(x, position)
        place = _first(x, best, position)
        cast = te.compute(place.shape, lambda *i: place(*i).astype(dtype), name="place")
        return topi.expand_dims(cast, position) if keep else cast

    return builder.call_te(kernel, data, primfunc_name_hint=str(call.op.name).split(".")[-1])


def _first(x: Tensor, best: Tensor, position: int) -> Tensor:
    """The least index along an axis at which `x` is `best` or NaN; the last where it is nowhere."""
    extent = int(x.shape[position])
    k = te.reduce_axis((tirx.const(0, "int64"), tirx.const(extent, "int64")), name="k")
    last = tirx.const(extent - 1, "int32")

    def element(*i: Any) -> Any:
        value, place = x(*i[:position], k, *i[position:]), k.var.astype("int32")
        found = tirx.Select(value == best(*i), place, last)
        if "float" in str(x.dtype):  # the comparison holds of all but NaN, and is left alone by TVM
            found = tirx.Select(tirx.LE(value, value), found, place)
        return te.min(found, axis=k)

    shape = [*x.shape[:position], *x.shape[position + 1 :]]
    return te.compute(shape, element, name="first")


def _takes(data: Expr) -> bool:
    shape = data.ty.shape
    if shape is None or not all(isinstance(extent, tirx.IntImm) for extent in shape.values):
        return False
    extents = [int(extent) for extent in shape.values]
    return len(extents) > 1 and all(0 < extent <= _LARGEST for extent in extents)
