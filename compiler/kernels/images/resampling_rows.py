"""Loop nests for resizing images that lie channels first.

The rows of the input that a row of the result reads are summed first, in whole vectors.  Along that
sum a vector of the result takes its elements from one vector or two, which an instruction picks in
any order; tables say where these vectors begin and which of their lanes are meant.  Where elements
lie further apart they are loaded one by one.  A few rows are done at a time, for which the tables
are read once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import add
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.runtime import tensor
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from hybridc.compiler.ir.rewrite import Expr, shape
from hybridc.compiler.kernels.images import resampling
from hybridc.compiler.kernels.images.resampling import Taps
from hybridc.compiler.kernels.tensor_expressions import unflatten, written
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

# The elements of a row at some columns.
_Row = Callable[[Expr], Expr]

# Elements that are worth a second thread.
_LEAST = 8192
# Rows that are done together: with two taps their vectors, the tables' and sums fill registers.
_ROWS = 4
# Columns of the input for each of the result, beyond which its rows are read for few of them.
_SPARSE = 4
_TYPES = ("float32", "float16", "uint8", "int8")
# By the lanes of a vector: the instruction that picks lanes in any order.
_PICKS = {8: "llvm.x86.avx2.permps", 16: "llvm.x86.avx512.permvar.sf.512"}
_ROW_BYTES = 16 * 2**10


@dataclass(frozen=True)
class _Columns:
    """For each vector of the result and tap: where it is read, [vectors, taps] and with lanes.

    `parts` are the vectors that the lanes are picked from; with 0 `lane` is where in the row each
    is loaded.
    """

    start: Array
    lane: Array
    weight: Array | None
    parts: int

    @property
    def count(self) -> int:
        """The taps."""
        return int(self.start.shape[1])


def resize2d(builder: Any, call: Any, target: Target) -> Expr:
    """Lower `relax.image.resize2d`: here where channels are first, else by `resampling`."""
    taps = resampling.resize_taps(call)
    if taps is None or not _takes(call.args[0], taps, target):
        return resampling.resize2d(builder, call)
    return _kernel(builder, call, taps, target)


def _takes(data: Expr, taps: dict[int, Taps], target: Target) -> bool:
    """Whether images `[N, C, H, W]` resized by these taps have a kernel here."""
    extents = shape(data)
    if sorted(taps) != [2, 3] or 0 in extents:
        return False
    fits = max(extents[3], 2 * target.lanes()) * 4 <= _ROW_BYTES
    sparse = extents[3] > _SPARSE * len(taps[3].index)
    return str(data.ty.dtype) in _TYPES and fits and not sparse and target.lanes() in _PICKS


def _kernel(builder: Any, call: Any, taps: dict[int, Taps], target: Target) -> Expr:
    data, dtype, name = call.args[0], str(call.ty.dtype), str(call.op.name).rsplit(".", 1)[-1]
    extents = shape(data)
    columns = _columns(taps[3], extents[3], target.lanes())
    arrays = [taps[2].index, columns.start, columns.lane]
    if taps[2].weight is not None and columns.weight is not None:
        arrays += [taps[2].weight, columns.weight]
    made = [*extents[:2], len(taps[2].index), len(taps[3].index)]
    places = [te.placeholder(each.shape, str(each.dtype), "table") for each in arrays]
    x = te.placeholder(extents, str(data.ty.dtype), "x")
    work = _Work(extents, made, taps[2].count, columns, target)
    result = te.extern([made], [x, *places], lambda ins, outs: work.body(ins, outs[0]), dtype=dtype)
    func = written([x, *places, result])
    tables = [relax.const(tensor(each), str(each.dtype)) for each in arrays]
    return relax.call_tir(builder.add_func(func, name), [data, *tables], call.ty)


def _columns(taps: Taps, extent: int, lanes: int) -> _Columns:
    """The tables of the columns, by vectors; the last vector overlaps that before it."""
    count = len(taps.index)
    firsts = [min(v * lanes, max(count - lanes, 0)) for v in range(-(-count // lanes))]
    place = np.minimum(np.array(firsts)[:, None] + np.arange(lanes), count - 1)
    index = taps.index[place].transpose(0, 2, 1)  # [vectors, taps, lanes]
    weight = (
        None if taps.weight is None else np.ascontiguousarray(taps.weight[place].transpose(0, 2, 1))
    )
    apart = int((index.max(2) - index.min(2)).max())
    parts = next((p for p in (1, 2) if apart < p * lanes), 0)
    # Vectors begin where the row still has as many elements as they take.
    start = np.minimum(index.min(2), max(extent - max(parts, 1) * lanes, 0))
    lane = index - start[:, :, None] if parts else index
    return _Columns(
        start.astype("int32"), np.ascontiguousarray(lane.astype("int32")), weight, parts
    )


@dataclass(frozen=True)
class _Work:
    """Writes the statements of one kernel."""

    given: tuple[int, ...]
    made: list[int]
    taps: int
    columns: _Columns
    target: Target

    def body(self, ins: Any, out: Any) -> Any:
        """A loop over groups of rows of the result."""
        planes, height = prod(self.made[:2]), self.made[2]
        rows = min(_ROWS, height)
        groups = -(-height // rows)
        parallel = prod(self.made) >= _LEAST and self.target.threads > 1 and planes * groups > 1
        with IRBuilder() as builder:
            x, *tables, y = (script.buffer_proxy(each) for each in (*ins, out))
            kind = script.parallel if parallel else script.serial
            with kind(0, planes * groups) as task:
                plane = unflatten(task // groups, self.made[:2])
                top = script.Bind(tirx.min(task % groups * rows, _long(height - rows)))
                places = [(plane, top + r) for r in range(rows)]
                self._pick_columns(self._rows(x, tables, places), tables, y, (plane, top))
            return builder.get()

    def _rows(self, x: Any, tables: list[Any], places: list[Any]) -> list[_Row]:
        """What stands at some columns, for each of these rows of the result."""
        width, least = self.given[3], max(self.columns.parts, 1) * self.target.lanes()
        picks = str(x.dtype) == "float32"  # the instruction that picks; others are converted
        if picks and self.columns.weight is None and width >= least:
            return [self._given(x, tables, place) for place in places]
        sums = [_array(max(width, least), "float32") for _ in places]
        for place, row in zip(places, sums, strict=True):
            self._sum_rows(x, tables, place, row)
        return [row.__getitem__ for row in sums]

    def _given(self, x: Any, tables: list[Any], at: tuple[Any, Any]) -> _Row:
        """A row of the input as it is."""
        plane, height = at
        own = script.Bind(tirx.Cast("int64", tables[0][height, 0]))
        return lambda columns: x[*plane, own, columns]

    def _sum_rows(self, x: Any, tables: list[Any], at: tuple[Any, Any], row: Any) -> None:
        """The weighted sum of the input's rows."""
        plane, height = at
        index, weights = tables[0], tables[3:4]
        own = [script.Bind(tirx.Cast("int64", index[height, tap])) for tap in range(self.taps)]
        factors = [[script.Bind(w[height, tap]) for w in weights] for tap in range(self.taps)]

        def put(i: Any) -> None:
            values = [x[*plane, place, i] for place in own]
            cast = [v if str(v.ty.dtype) == "float32" else tirx.Cast("float32", v) for v in values]
            row[i] = reduce(add, [v * f[0] if f else v for v, f in zip(cast, factors, strict=True)])

        _vectors(self.given[3], self.target.lanes(), put)

    def _pick_columns(
        self, rows: Sequence[_Row], tables: list[Any], y: Any, at: tuple[Any, Any]
    ) -> None:
        """The weighted sums of the columns of rows that are sums themselves."""
        plane, top = at
        width, lanes = self.made[3], self.target.lanes()
        vectors = -(-width // lanes)
        with script.serial(0, vectors) as v:
            first = tirx.min(v * lanes, _long(max(width - lanes, 0)))
            for r, row in enumerate(rows):
                tile = _array(lanes, "float32")
                terms = [self._tap(row, tables, v, tap) for tap in range(self.columns.count)]
                tile[_ramp(_long(0), lanes)] = reduce(add, terms)

                def put(lane: Any, tile: Any = tile, r: int = r) -> None:
                    value, dtype = tile[lane], str(y.dtype)
                    cast = value if dtype == "float32" else tirx.Cast(dtype, value)
                    y[*plane, top + r, first + lane] = cast

                count = min(lanes, width)
                if count == 1:
                    put(_long(0))
                    continue
                with script.vectorized(0, count) as lane:
                    put(lane)

    def _tap(self, row: _Row, tables: list[Any], vector: Any, tap: int) -> Expr:
        """One term of a vector of the result."""
        start, lane, weights = tables[1], tables[2], tables[4:5]
        lanes = self.target.lanes()
        which = lane[vector, tap, _ramp(_long(0), lanes)]
        begin = tirx.Cast("int64", start[vector, tap])
        picked = self._picked(row, begin, which) if self.columns.parts else row(which)
        return picked * weights[0][vector, tap, _ramp(_long(0), lanes)] if weights else picked

    def _picked(self, row: _Row, begin: Expr, which: Expr) -> Expr:
        """Lanes of one vector or of two neighbours."""
        lanes = self.target.lanes()
        parts = [
            tirx.call_llvm_pure_intrin(
                f"float32x{lanes}", _PICKS[lanes], row(_ramp(begin + i * lanes, lanes)), which
            )
            for i in range(self.columns.parts)
        ]
        if len(parts) == 1:
            return parts[0]
        limit = tirx.Broadcast(tirx.const(lanes, "int32"), lanes)
        return tirx.Select(tirx.LT(which, limit), *parts)


def _vectors(count: int, lanes: int, body: Any) -> None:
    """Do something for each of some neighbours; the last vector overlaps that before it."""
    wide = min(lanes, count)
    if wide == 1:
        body(_long(0))
        return
    whole, rest = divmod(count, wide)
    with script.serial(0, whole) as v, script.vectorized(0, wide) as lane:
        body(v * wide + lane)
    if rest:
        with script.vectorized(0, wide) as lane:
            body(count - wide + lane)


def _ramp(first: Any, lanes: int) -> Expr:
    return tirx.Ramp(first, _long(1), lanes)


def _array(size: int, dtype: str) -> Any:
    return script.buffer_proxy(script.alloc_buffer((size,), dtype))


def _long(value: int) -> Expr:
    return tirx.const(value, "int64")
