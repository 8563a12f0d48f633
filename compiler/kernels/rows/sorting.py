"""Sorted rows and the largest elements of rows, on all threads.

TVM calls a library for these, on one thread.  Here every element becomes an integer that orders as
it does, with NaN as the largest number and equal elements by their places, and then

* a short row is sorted by ranks: an element's place is the number of those before it, which are
  counted whole vectors at a time, without a branch;
* the best few of a long row are kept sorted, and vectors without anything better are passed over;
* where many are wanted, what may be among them is collected, and sorted by bytes, the last first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from hybridc.compiler.ir.rewrite import Expr, operator, shape
from hybridc.compiler.kernels.indexing.joins import is_static
from hybridc.compiler.kernels.rows import sorting_rows
from hybridc.compiler.kernels.tensor_expressions import unflatten, written
from hybridc.compiler.target import Target

# Elements that are worth a second thread.
_LEAST = 2048
_MOST = 2**31 - 1
_INDICES = ("int32", "int64")


@dataclass(frozen=True)
class _Wanted:
    """What an operator asks of rows along an axis: `outputs` are "values" and "indices"."""

    axis: int
    count: int
    largest: bool
    outputs: tuple[str, ...]


def lower(builder: Any, value: Expr, target: Target) -> Expr | None:
    """The call of a kernel for `relax.sort`, `argsort` or `topk`; None for all else.

    That is what has open sizes, or is of types besides `sorting_rows.TYPES`.
    """
    if operator(value) not in ("sort", "argsort", "topk") or not _takes(value):
        return None
    wanted, types, data = _wanted(value), _types(value), value.args[0]
    extents = shape(data)
    last = len(extents) - 1
    order = [*(axis for axis in range(last + 1) if axis != wanted.axis), wanted.axis]
    turned = data if wanted.axis == last else relax.op.permute_dims(data, order)
    func, made = _kernel(
        [extents[axis] for axis in order], str(data.ty.dtype), types, wanted, target
    )
    results = [relax.TensorType(each, dtype) for each, dtype in zip(made, types, strict=True)]
    name = builder.add_func(func, operator(value))
    call = relax.call_tir(name, [turned], results if len(results) > 1 else results[0])
    if wanted.axis == last:
        return call
    back = [order.index(axis) for axis in range(last + 1)]
    if len(results) == 1:
        return relax.op.permute_dims(call, back)
    parts = [relax.TupleGetItem(call, i) for i in range(len(results))]
    return relax.Tuple([relax.op.permute_dims(part, back) for part in parts])


def _takes(value: Expr) -> bool:
    data = value.args[0]
    if not is_static(data) or 0 in shape(data) or not shape(data):
        return False
    wanted = _wanted(value)
    places = [
        dtype
        for dtype, kind in zip(_types(value), wanted.outputs, strict=True)
        if kind == "indices"
    ]
    return (
        str(data.ty.dtype) in sorting_rows.TYPES
        and all(dtype in _INDICES for dtype in places)
        and shape(data)[wanted.axis] <= _MOST
    )


def _wanted(value: Expr) -> _Wanted:
    attrs, extents = value.attrs, shape(value.args[0])
    axis = int(attrs.axis) % len(extents)
    match operator(value):
        case "sort":
            return _Wanted(axis, extents[axis], bool(attrs.descending), ("values",))
        case "argsort":
            return _Wanted(axis, extents[axis], bool(attrs.descending), ("indices",))
        case _:
            kind = str(attrs.ret_type)
            outputs = ("values", "indices") if kind == "both" else (kind,)
            asked = int(attrs.k)
            count = min(asked, extents[axis]) if asked > 0 else extents[axis]
            return _Wanted(axis, count, bool(attrs.largest), outputs)


def _types(value: Expr) -> list[str]:
    return [str(each.dtype) for each in getattr(value.ty, "fields", [value.ty])]


def _kernel(
    extents: Sequence[int], dtype: str, types: Sequence[str], wanted: _Wanted, target: Target
) -> tuple[Any, list[list[int]]]:
    """The kernel, and the shapes of its results."""
    x = te.placeholder(extents, dtype, "x")
    shapes = [[*extents[:-1], wanted.count] for _ in types]

    def body(ins: Any, outs: Any) -> Any:
        return _rows(ins[0], dict(zip(wanted.outputs, outs, strict=True)), wanted, target)

    made = te.extern(shapes, [x], body, dtype=list(types))
    results = made if isinstance(made, list) else [made]
    return written([x, *results]), shapes


def _rows(data: Any, outs: dict[str, Any], wanted: _Wanted, target: Target) -> Any:
    *outer, length = (int(extent) for extent in data.shape)
    rows = prod(outer)
    with IRBuilder() as builder:
        x = script.buffer_proxy(data)
        results = {kind: script.buffer_proxy(out) for kind, out in outs.items()}
        parallel = rows > 1 and rows * length >= _LEAST and target.threads > 1
        with (script.parallel if parallel else script.serial)(0, rows) as row:
            at = unflatten(row, outer)

            def write(rank: Any, place: Any) -> None:
                if "values" in results:
                    results["values"][*at, rank] = x[*at, place]
                if "indices" in results:
                    kind = str(outs["indices"].dtype)
                    results["indices"][*at, rank] = tirx.Cast(kind, place)

            def key(place: Any) -> Any:
                return sorting_rows.key(x[*at, place], wanted.largest)

            sorting_rows.Row(length, wanted.count, key, write, target).sort()
        return builder.get()
