"""Scattered rows, whole vectors at a time.

TVM's loops take one element after the other, on one thread, and find the place of each anew.  Here
a place is found once for its row, and threads share the columns: whichever rows fall together, no
two threads write the same element, and they are combined in the order that the operator defines.
"""

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any

from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from hybridc.compiler.ir.rewrite import Expr, shape
from hybridc.compiler.kernels.indexing.joins import is_static
from hybridc.compiler.kernels.rows.scans import abreast
from hybridc.compiler.target import Target

# Elements that are worth a second thread.
_LEAST = 16_384
_TYPES = ("float32", "float64", "int32", "int64")
# Types of which rows are only moved.
_MOVED = (*_TYPES, "float16", "bfloat16", "int8", "uint8", "int16")
_COMBINED: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        "update": lambda _, new: new,
        "add": lambda old, new: old + new,
        "mul": lambda old, new: old * new,
        "max": tirx.max,
        "min": tirx.min,
    }
)


def scatter_nd(builder: Any, call: Any, target: Target) -> Expr:
    """Lower `relax.scatter_nd` of static shapes and numbers of 32 or 64 bits."""
    data, indices, updates = call.args
    how, dtype = str(call.attrs.reduction), str(call.ty.dtype)
    combined, types = _COMBINED.get(how), _MOVED if how == "update" else _TYPES
    known = all(map(is_static, call.args)) and all(0 not in shape(x) for x in call.args)
    if not known or combined is None or dtype not in types:
        return call.op.get_attr("FLegalize")(builder, call)
    operands = [te.placeholder(shape(x), str(x.ty.dtype), "x") for x in call.args]
    made = te.extern(
        [shape(data)],
        operands,
        lambda ins, outs: _scattered(ins, outs[0], combined, target),
        dtype=dtype,
    )
    func = te.create_prim_func([*operands, made]).without_attr("global_symbol")
    return relax.call_tir(builder.add_func(func, "scatter_nd"), [data, indices, updates], call.ty)


def _scattered(ins: Any, out: Any, combined: Callable[[Any, Any], Any], target: Target) -> Any:
    """The data, and then each row of the updates where its index says."""
    extents, (*many, depth) = ([int(e) for e in each.shape] for each in (out, ins[1]))
    rows, columns = prod(extents[:depth]), prod(extents[depth:])
    count = prod(many)
    part, tasks = _parts(columns, count + rows, target, str(out.dtype))
    width = part[0] * part[1]
    kind = script.parallel if tasks > 1 else script.serial
    # Whole rows: a thread that copies a part of each reads memory in pieces.
    with IRBuilder() as builder:
        data, y = (script.buffer_proxy(each) for each in (ins[0], out))
        with kind(0, rows) as row:

            def copy(i: Any) -> None:
                y[row * columns + i] = data[row * columns + i]

            abreast((part[0] * tasks, part[1]), copy)
        copied = builder.get()
    with IRBuilder() as builder:
        indices, updates, y = (script.buffer_proxy(each) for each in (*ins[1:], out))
        with kind(0, tasks) as task:
            first = task * width
            with script.serial(0, count) as m:
                place: Any = 0
                for k, extent in enumerate(extents[:depth]):
                    place = place * extent + tirx.Cast("int32", indices[m * depth + k])
                to, of = place * columns + first, m * columns + first

                def combine(i: Any) -> None:
                    y[to + i] = combined(y[to + i], updates[of + i])

                abreast(part, combine)
        return tirx.SeqStmt([copied, builder.get()])


def _parts(columns: int, rows: int, target: Target, dtype: str) -> tuple[tuple[int, int], int]:
    """Vectors and lanes that a task takes of each row, and the tasks."""
    lanes = target.lanes(dtype)
    if columns % lanes:
        return (columns, 1), 1
    vectors = columns // lanes
    most = target.threads if rows * columns >= _LEAST else 1
    tasks = max(d for d in range(1, most + 1) if vectors % d == 0)
    return (vectors // tasks, lanes), tasks
