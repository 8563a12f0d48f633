"""Cumulative sums whose every step is whole vectors, or several rows at once.

TVM adds up one element after the other, each from what it has stored just before: along the first
axis of a matrix a cache line for each of them.
"""

from collections.abc import Callable
from math import prod
from typing import Any

from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from hybridc.compiler.ir.rewrite import Expr, operator, shape
from hybridc.compiler.kernels.indexing.joins import is_static
from hybridc.compiler.target import Target

# Vectors, or rows, that are added up side by side: an addition takes 4 cycles, and a sum that was
# stored as long again until it can be loaded.
_ABREAST = 8
# Rows whose vectors are added up side by side, since each waits for what came before it.
_ROWS = 4
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
    along = parts[2] == 1 and parts[1] >= 2 * target.lanes(dtype)
    sums = _sums_of_rows if along else _sums
    made = te.extern(
        [extents], [x], lambda ins, outs: sums(ins[0], outs[0], parts, target), dtype=dtype
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


def _sums_of_rows(data: Any, out: Any, parts: tuple[int, int, int], target: Target) -> Any:
    """Sums along rows: of a vector's lanes in registers, to which is added what came before."""
    rows, count, _ = parts
    lanes = target.lanes(str(data.dtype))
    whole, rest = divmod(count, lanes)
    side = _side_by_side(rows, target)
    with IRBuilder() as builder:
        zeros = tirx.Broadcast(tirx.const(0, str(data.dtype)), lanes)
        tasks_loop = script.parallel if prod(parts) >= _LEAST else script.serial
        with tasks_loop(0, rows // side) as task:
            starts = [(task * side + row) * count for row in range(side)]
            before = [_vector(lanes, str(data.dtype)) for _ in starts]
            for carried in before:
                carried[_ramp(0, lanes)] = zeros
            with script.serial(0, whole) as vector:
                for start, carried in zip(starts, before, strict=True):
                    at = _ramp(start + vector * lanes, lanes)
                    sums = _prefix_sums(script.Bind(_load(data, at)), zeros)
                    _put(out, at, carried[_ramp(0, lanes)] + sums)
                    last = tirx.Shuffle([sums], [tirx.const(lanes - 1, "int32")] * lanes)
                    carried[_ramp(0, lanes)] = carried[_ramp(0, lanes)] + last
            for start in starts if rest else ():  # the last vector overlaps the one before it
                at = _ramp(start + (count - lanes), lanes)
                sums = _prefix_sums(script.Bind(_load(data, at)), zeros)
                _put(out, at, tirx.Broadcast(_load(out, at.base - 1), lanes) + sums)
        return builder.get()


def _side_by_side(rows: int, target: Target) -> int:
    """Rows of a task, as many as leave one to each thread."""
    whole = [d for d in range(2, _ROWS + 1) if rows % d == 0]
    return max((d for d in whole if rows // d >= target.threads), default=1)


def _prefix_sums(vector: Any, zeros: Any) -> Any:
    """The sum of each lane and those before it, by adding the last sum of each block to the next.

    J. Sklansky: Conditional-sum addition logic, IRE Transactions EC-9(2), 1960.
    """
    lanes, block = int(vector.ty.dtype.lanes), 1
    while block < lanes:
        places = [
            lane // block * block - 1 if lane & block else lanes  # the latter is a zero
            for lane in range(lanes)
        ]
        order = [tirx.const(place, "int32") for place in places]
        vector = script.Bind(vector + tirx.Shuffle([vector, zeros], order))
        block *= 2
    return vector


def _load(buffer: Any, at: Any) -> Any:
    """What lies so many places behind a buffer's first element."""
    return tirx.BufferLoad(buffer, _flat(buffer, at))


def _put(buffer: Any, at: Any, value: Any) -> None:
    script.buffer_store(buffer, value, _flat(buffer, at))


def _flat(buffer: Any, at: Any) -> list[Any]:
    return [*[tirx.const(0, "int64")] * (len(buffer.shape) - 1), at]


def _vector(lanes: int, dtype: str) -> Any:
    return script.buffer_proxy(script.alloc_buffer((lanes,), dtype))


def _ramp(first: Any, lanes: int) -> Any:
    start = tirx.const(first, "int64") if isinstance(first, int) else first
    return tirx.Ramp(start, tirx.const(1, "int64"), lanes)


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
