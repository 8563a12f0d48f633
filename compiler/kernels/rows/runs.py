"""Runs of rows, each reduced to one row: where they begin and end depends on the data.

A run is read once, a vector after another, and no row outside of it is.  Runs may overlap, and
threads share them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from hybridc.compiler.kernels.rows.scans import abreast

# Elements that are worth a second thread.
_LEAST = 16_384
_LANES = (16, 8, 4)


@dataclass(frozen=True)
class Runs:
    """How many rows of which width there are, and how many runs; how these are reduced.

    `mode` is sum, mean or max; a mean of no rows is 0.  `blank`: a run that ends where it begins is
    zeros.  `last`: "whole" if the last run goes on to the end of all rows, "mean" if it is divided
    by how far it begins before that end.
    """

    rows: int
    width: int
    count: int
    mode: str
    blank: bool
    last: str


def reduced(runs: Runs, dtype: str) -> Any:
    """A function of rows, and of where each run begins and ends as ONNX's Slice counts."""
    sides = [te.placeholder((runs.count,), "int64", name) for name in ("starts", "ends")]
    data = te.placeholder((runs.rows, runs.width), dtype, "x")
    made = te.extern(
        [(runs.count, runs.width)],
        [data, *sides],
        lambda ins, outs: _loops(runs, ins, outs[0]),
        dtype=dtype,
    )
    return te.create_prim_func([data, *sides, made]).without_attr("global_symbol")


def _loops(runs: Runs, ins: Any, out: Any) -> Any:
    lanes = next((lanes for lanes in _LANES if runs.width % lanes == 0), 1)
    part, dtype = (runs.width // lanes, lanes), str(out.dtype)
    first = tirx.const(float("-inf") if runs.mode == "max" else 0, dtype)
    with IRBuilder() as builder:
        x, starts, ends, y = (script.buffer_proxy(each) for each in (*ins, out))
        large = runs.rows * runs.width >= _LEAST
        with (script.parallel if large else script.serial)(0, runs.count) as run:
            start, end = script.Bind(starts[run]), script.Bind(ends[run])
            low, high = _bounds(runs, run, start, end)
            here = run * runs.width

            def put(value: Callable[[Any], Any]) -> None:
                def store(i: Any) -> None:
                    y[here + i] = value(i)

                abreast(part, store)

            put(lambda i: first)
            with script.serial(0, tirx.max(high - low, _long(0))) as row:
                at = (low + row) * runs.width
                put(lambda i: _combined(runs.mode, y[here + i], x[at + i]))
            if runs.mode == "mean":
                many = script.Bind(tirx.Cast(dtype, _divisor(runs, run, start, high - low)))
                put(lambda i: y[here + i] / many)
            if runs.blank:
                same = script.Bind(tirx.EQ(start, end))
                put(lambda i: tirx.Select(same, tirx.const(0, dtype), y[here + i]))
        return builder.get()


def _bounds(runs: Runs, run: Any, start: Any, end: Any) -> tuple[Any, Any]:
    """The first row of a run, and the one behind its last."""
    last = tirx.EQ(run, runs.count - 1)
    low, high = _inside(start, runs.rows), _inside(end, runs.rows)
    if runs.last == "whole":
        high = tirx.Select(last, _long(runs.rows), high)
    return script.Bind(low), script.Bind(high)


def _inside(place: Any, rows: int) -> Any:
    """A place counted from the end if it is negative, and moved to the nearest end if outside."""
    wrapped = tirx.Select(place < _long(0), place + _long(rows), place)
    return tirx.max(tirx.min(wrapped, _long(rows)), _long(0))


def _divisor(runs: Runs, run: Any, start: Any, many: Any) -> Any:
    if runs.last == "mean":
        many = tirx.Select(tirx.EQ(run, runs.count - 1), _long(runs.rows) - start, many)
    return tirx.max(many, _long(1))


def _combined(mode: str, old: Any, new: Any) -> Any:
    if mode != "max":
        return old + new
    larger = tirx.Select(new > old, new, old)  # a NaN is not, and stays once it is the largest
    return tirx.Select(tirx.LE(new, new), larger, new)


def _long(value: int) -> Any:
    return tirx.const(value, "int64")
