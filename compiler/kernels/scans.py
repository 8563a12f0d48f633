"""Cumulative sums whose every step is whole vectors, or several rows at once.

TVM adds up one element after the other, each from what it has stored just before: along the first
axis of a matrix a cache line for each of them.
"""

from collections.abc import Callable
from math import prod
from typing import Any

from tvm import relax, te
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from hybridc.compiler.kernels.joins import is_static
from hybridc.compiler.rewrite import Expr, operator, shape
from hybridc.compiler.target import Target

# Vectors, or rows, that are added up side by side: an addition takes 4 cycles, and a sum that was
# stored as long again until it can be loaded.
_ABREAST = 8
# Elements that are worth a second thread.
_LEAST = 16_384
_TYPES = ("float32", "float64", "int32", "int64")


def lower(builder: Any, value: Expr, target: Target) -> Expr | None:
    """The kernel's call for a `relax.cumsum` of numbers of one type; None for all else."""
    if operator(value) != "cumsum" or not is_static(value) or value.attrs.axis is None:
        return None
    data = value.args[0]
    dtype, extents = str(value.ty.dtype), shape(data)
    if value.attrs.exclusive or dtype != str(data.ty.dtype) or dtype not in _TYPES:
        return None
    if 0 in extents:
        return None
    axis = int(value.attrs.axis) % len(extents)
    x = te.placeholder(extents, dtype, "x")
    parts = prod(extents[:axis]), extents[axis], prod(extents[axis + 1 :])
    made = te.extern(
        [extents], [x], lambda ins, outs: _sums(ins[0], outs[0], parts, target), dtype=dtype
    )
    func = te.create_prim_func([x, made]).without_attr("global_symbol")
    return relax.call_tir(builder.add_func(func, "cumsum"), [data], value.ty)


def _sums(data: Any, out: Any, parts: tuple[int, int, int], target: Target) -> Any:
    """Sums along the middle of three axes, on all threads."""
    before, count, behind = parts
    lanes = target.lanes(str(data.dtype))
    if behind % lanes == 0:
        part, step = (_fitting(behind // lanes), lanes), 1
        tasks, stride = before * (behind // (part[0] * lanes)), behind
    elif behind > 1:
        part, step, tasks, stride = (behind, 1), 1, before, behind
    else:
        part, step = (_fitting(before), 1), count
        tasks, stride = before // part[0], 1
    with IRBuilder() as builder:
        x, y = script.buffer_proxy(data), script.buffer_proxy(out)
        tasks_loop = script.parallel if prod(parts) >= _LEAST else script.serial
        with tasks_loop(0, tasks) as task:
            first = _first(task, parts, part)
            abreast(part, lambda i: _store(y, first + i * step, x[first + i * step]))
            with script.serial(0, count - 1) as k:
                at = first + (k + 1) * stride

                def add(i: Any) -> None:
                    here = at + i * step
                    y[here] = y[here - stride] + x[here]

                abreast(part, add)
        return builder.get()


def _first(task: Any, parts: tuple[int, int, int], part: tuple[int, int]) -> Any:
    """Where the elements of a task begin."""
    _, count, behind = parts
    width = part[0] * part[1]
    if behind == 1:
        return task * width * count
    pieces = behind // width
    return task // pieces * (count * behind) + task % pieces * width


def abreast(part: tuple[int, int], body: Callable[[Any], None]) -> None:
    """Do something for each of some vectors."""
    vectors, lanes = part
    with script.serial(0, vectors) as vector:
        if lanes == 1:
            body(vector)
            return
        with script.vectorized(0, lanes) as lane:
            body(vector * lanes + lane)


def _store(buffer: Any, at: Any, value: Any) -> None:
    buffer[at] = value


def _fitting(count: int) -> int:
    """The most that are done abreast and divide a count."""
    return max(d for d in range(1, _ABREAST + 1) if count % d == 0)
