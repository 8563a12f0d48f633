"""Reshapes of open sizes as loop nests that divide only for the axes that change.

It fits `relax.transform.LegalizeOps`: a block builder and a call, to what takes the call's place.
"""

from collections.abc import Sequence
from typing import Any

from tvm import relax, sym, te, tirx

from hybridc.compiler.kernels.indexing.joins import is_static

Expr = Any  # tvm.relax.Expr
Tensor = Any  # tvm.te.Tensor


def reshape(builder: Any, call: Any) -> Expr:
    """Lower `relax.reshape`: axes that both shapes begin or end with keep their indices.

    TVM makes one number of all indices and takes it apart again, and cannot simplify that where
    extents are sums or quotients of open sizes.  LLVM then computes with each axis all the
    divisions of those before it, which doubles the code each time: minutes for five axes.
    """
    data = call.args[0]
    shapes = [getattr(value.ty, "shape", None) for value in (data, call)]
    known = all(isinstance(shape, relax.ShapeExpr) for shape in shapes)
    if not known or (is_static(data) and is_static(call)):
        return call.op.get_attr("FLegalize")(builder, call)

    def kernel(x: Tensor, after: Sequence[Any]) -> Tensor:
        return te.compute(after, lambda *i: x(*_places(x.shape, after, i)), "T_reshape")

    return builder.call_te(kernel, data, call.ty.shape, primfunc_name_hint="reshape")


def _places(before: Sequence[Any], after: Sequence[Any], indices: Sequence[Any]) -> list[Any]:
    """The indices in a tensor of shape `before` of what has some in shape `after`."""
    analyzer = sym.Analyzer()
    here = [axis for axis, extent in enumerate(before) if not _is_one(extent)]
    there = [axis for axis, extent in enumerate(after) if not _is_one(extent)]
    places: list[Any] = [tirx.const(0, "int64")] * len(before)
    for end in (0, -1):
        while here and there and analyzer.can_prove_equal(before[here[end]], after[there[end]]):
            places[here.pop(end)] = indices[there.pop(end)]
    flat: Any = tirx.const(0, "int64")
    for axis in there:
        flat = flat * after[axis] + indices[axis]
    for axis in reversed(here[1:]):
        places[axis], flat = flat % before[axis], flat // before[axis]
    if here:
        places[here[0]] = flat
    return places


def _is_one(extent: Any) -> bool:
    return isinstance(extent, tirx.IntImm) and int(extent) == 1
