"""Keep every index that is computed at run time inside the axis that it indexes.

TVM's gathers and scatters touch memory wherever an index points, so a token id beyond the
vocabulary would read, or write, what belongs to others.  Here a negative index counts from the
end, as in ONNX and numpy, and one that is still outside is moved to the nearest element.
"""

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx

from hybridc.compiler.errors import ModelError
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import (
    Expr,
    Extent,
    Graph,
    are_known,
    constant,
    open_shape,
    operator,
    rewrite,
    shape,
    with_attributes,
)
from hybridc.compiler.model import Array

# How whole rows may be combined.
_WHOLE = frozenset({"update", "add", "mul", "max", "min"})
Extents = Extent | tuple[Extent, ...]  # of one axis, or of those that are indexed together


def bound(module: IRModule) -> IRModule:
    """Bound the indices of all gathers and scatters; constants that lie inside stay as they are.

    Raises ModelError where the axis that is indexed has a size that depends on the data.
    """
    return rewrite(module, _rule)


def _rule(value: Expr, graph: Graph) -> Expr | None:
    rule = _RULES.get(operator(value))
    if rule is None:
        return None
    if not isinstance(value.args[0].ty.shape, relax.ShapeExpr):
        raise ModelError(f"{operator(value)} of a tensor whose shape depends on the data")
    return rule(value, graph)


def _take(value: Expr, graph: Graph) -> Expr | None:
    """The operator clips by itself where it is asked to, so only negative indices are moved."""
    if value.attrs.mode != "fast":
        return None
    data, index = value.args
    axis = value.attrs.axis
    sizes = open_shape(data)
    extent = prod(sizes) if axis is None else sizes[int(axis)]
    return with_attributes(value, [data, _wrapped(index, extent, graph)], mode="clip")


def _elements(value: Expr, graph: Graph) -> Expr | None:
    """One index for each element, all along one axis."""
    if (rows := _rows(value, graph)) is not None:
        return rows
    data, index, *rest = value.args
    extent = open_shape(data)[int(value.attrs.axis)]
    inside = _inside(index, extent, graph)
    return None if inside is None else _on(value, [data, inside, *rest])


def _rows(value: Expr, graph: Graph) -> Expr | None:
    """Rows that are scattered whole, each to one place, written as the same index for each element.

    Exporters of graph networks write them so; rows are scattered by whole vectors.
    """
    if operator(value) != "scatter_elements" or int(value.attrs.axis) != 0:
        return None
    data, index, updates = value.args
    spread = graph.call(index, "broadcast_to")
    how = str(value.attrs.reduction)
    if spread is None or how not in _WHOLE or shape(updates) != shape(index):
        return None
    count, *ones = shape(spread.args[0])
    alone = len(ones) == len(shape(data)) - 1 and all(map(_is_one, ones))
    if not alone or shape(index)[1:] != shape(data)[1:] or count != shape(index)[0]:
        return None
    places = relax.op.reshape(spread.args[0], [count, 1])
    return relax.op.scatter_nd(data, places, updates, reduction=how)


def _is_one(size: Extent) -> bool:
    return are_known([size]) and size == 1


def _tuples(value: Expr, graph: Graph) -> Expr | None:
    """The last axis of the indices numbers the axes that they index together."""
    data, index, *rest = value.args
    first = int(value.attrs.batch_dims) if operator(value) == "gather_nd" else 0
    extents = open_shape(data)[first : first + shape(index)[-1]]
    inside = _inside(index, extents, graph)
    return None if inside is None else _on(value, [data, inside, *rest])


def _tensors(value: Expr, graph: Graph) -> Expr | None:
    """A tensor of indices for each leading axis."""
    data, given, *rest = value.args
    indices = graph.value(given)
    if not isinstance(indices, tvm.ir.Tuple):
        return None
    pairs = zip(indices.fields, open_shape(data), strict=False)
    inside = [_inside(index, extent, graph) for index, extent in pairs]
    if all(index is None for index in inside):
        return None
    fields = [old if new is None else new for new, old in zip(inside, indices.fields, strict=True)]
    return _on(value, [data, tvm.ir.Tuple(fields), *rest])


def _on(value: Expr, operands: list[Expr]) -> Expr:
    """The same operator on other operands."""
    return tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)


def _inside(index: Expr, extents: Extents, graph: Graph) -> Expr | None:
    """The index moved inside, or None where it is known to be there or is a mask."""
    if str(index.ty.dtype) == "bool" or _is_inside(index, extents, graph):
        return None
    dtype = _wide(index)
    below = relax.op.minimum(_wrapped(index, extents, graph), _numbers(_last(extents), dtype))
    return relax.op.maximum(below, constant(np.array(0), dtype))


def _is_inside(index: Expr, extents: Extents, graph: Graph) -> bool:
    """Whether an index is a constant inside, or was moved there before."""
    sizes = _known(extents)
    known = graph.constant(index)
    if known is not None and sizes is not None:
        return bool(((known >= 0) & (known < sizes)).all())
    largest = graph.call(index, "maximum")
    smallest = None if largest is None else graph.call(largest.args[0], "minimum")
    if largest is None or smallest is None:
        return False
    low, high = graph.constant(largest.args[1]), graph.constant(smallest.args[1])
    # A model's own least index may lie behind the axis; of an open one only 0 surely does not.
    if low is None or not ((low >= 0) & (low < (1 if sizes is None else sizes))).all():
        return False
    if sizes is None or high is None:
        return tvm_ffi.structural_equal(
            _told(smallest.args[1], graph), _told(_numbers(_last(extents), _wide(index)), graph)
        )
    return bool((high < sizes).all())


def _wrapped(index: Expr, extents: Extents, graph: Graph) -> Expr:
    """The index with negative numbers counted from the end."""
    known, sizes, dtype = graph.constant(index), _known(extents), _wide(index)
    if known is not None and (known >= 0).all():
        return constant(known, dtype)
    if known is not None and sizes is not None:
        return constant(np.where(known < 0, known + sizes, known), dtype)
    # Integers of fewer bits may not hold the extent.
    wide = index if str(index.ty.dtype) == dtype else relax.op.astype(index, dtype)
    negative = relax.op.less(wide, constant(np.array(0), dtype))
    return relax.op.where(negative, relax.op.add(wide, _numbers(extents, dtype)), wide)


def _known(extents: Extents) -> Array | None:
    """Sizes as an array, None where one is open."""
    listed = extents if isinstance(extents, tuple) else (extents,)
    return np.array(extents) if are_known(listed) else None


def _last(extents: Extents) -> Extents:
    """The last index of each axis; of one without elements the first."""
    if isinstance(extents, tuple):
        return tuple(map(_last, extents))
    return max(extents - 1, 0) if isinstance(extents, int) else extents - 1


def _numbers(extents: Extents, dtype: str) -> Expr:
    """Sizes as a tensor, a scalar of one that stands alone."""
    known = _known(extents)
    if known is not None:
        return constant(known, dtype)
    listed = extents if isinstance(extents, tuple) else (extents,)
    sizes = [tirx.const(size, "int64") if isinstance(size, int) else size for size in listed]
    made = relax.op.shape_to_tensor(relax.ShapeExpr(sizes))
    made = made if isinstance(extents, tuple) else relax.op.reshape(made, [])
    return made if dtype == "int64" else relax.op.astype(made, dtype)


def _told(numbers: Expr, graph: Graph) -> Expr:
    """The sizes of which a tensor of numbers was made; the tensor where it was made otherwise."""
    value = graph.value(numbers)
    while operator(value) in ("astype", "reshape"):
        value = graph.value(value.args[0])
    return graph.value(value.args[0]) if operator(value) == "shape_to_tensor" else numbers


def _wide(index: Expr) -> str:
    return "int32" if str(index.ty.dtype) == "int32" else "int64"


_RULES: Mapping[str, Callable[[Any, Graph], Any]] = MappingProxyType(
    {
        "gather_elements": _elements,
        "gather_nd": _tuples,
        "index_put": _tensors,
        "index_tensor": _tensors,
        "scatter_elements": _elements,
        "scatter_nd": _tuples,
        "take": _take,
    }
)
