"""Elements placed among zeros.

A scatter into zeros reads these, and makes places of its indices in a pass of its own.
"""

from typing import Any

from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from hybridc.compiler.kernels.rows.scans import abreast

# Zeros are stored as many at a time; a CPU of narrower vectors stores them in several.
_LANES = 16


def placed(count: int, total: int, dtype: str) -> Any:
    """A function of `count` elements and their places among `total`, of which the last holds.

    A negative place counts from the end; one outside is the first or the last.
    """
    elements = te.placeholder((count,), dtype, "x")
    places = te.placeholder((count,), "int64", "places")
    made = te.extern(
        [(total,)], [elements, places], lambda ins, outs: _loops(ins, outs[0]), dtype=dtype
    )
    return te.create_prim_func([elements, places, made]).without_attr("global_symbol")


def _loops(ins: Any, out: Any) -> Any:
    count, total = int(ins[0].shape[0]), int(out.shape[0])
    whole = total // _LANES * _LANES
    with IRBuilder() as builder:
        y = script.buffer_proxy(out)

        def clear(i: Any) -> None:
            y[i] = tirx.const(0, str(out.dtype))

        abreast((whole // _LANES, _LANES), clear)
        cleared = builder.get()
    with IRBuilder() as builder:
        y = script.buffer_proxy(out)
        with script.serial(whole, total) as i:
            y[i] = tirx.const(0, str(out.dtype))
        rest = builder.get()
    with IRBuilder() as builder:
        x, places, y = (script.buffer_proxy(each) for each in (*ins, out))
        with script.serial(0, count) as i:
            place = script.Bind(places[i])
            end = tirx.const(total, "int64")
            own = tirx.Select(place < 0, place + end, place)
            inside = tirx.max(tirx.min(own, end - 1), tirx.const(0, "int64"))
            y[inside] = x[i]
        return tirx.SeqStmt([cleared, rest, builder.get()])
