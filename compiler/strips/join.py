"""One kernel of all sizes, made of scheduled strips: loops over strips, chosen by the size.

The last strip along an axis begins where it ends with the axis, so that strips overlap, and what
lies in two is computed twice, the same both times.  Sizes below that of the largest strip are left
to smaller ones; the smallest is one place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import s_tir, sym, tirx
from tvm.ir import Range
from tvm.ir.expr import TensorLoad, TensorRegion
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels import kernel_cost
from hybridc.compiler.strips.axes import Axis, Expr, Var, is_buffer
from hybridc.compiler.strips.cut import Strip, base_of

# Operations of a strip beyond which starting and joining threads for it costs nothing: 0.3 ms.
_LONG = 2**25
# Strips for each thread that make it worth while to leave each to one thread.
_ENOUGH = 2


@dataclass(frozen=True)
class Scheduled:
    """A strip, and the function that a rule made of it, with parameters in the same order."""

    strip: Strip
    func: PrimFunc

    @property
    def accumulates(self) -> bool:
        """Whether results are read back before they are final, so that no two may overlap."""
        stored: list[Any] = []
        loaded: list[Any] = []
        structural_walk(self.func.body, (tirx.BufferStore, lambda s: stored.append(s.buffer)))
        structural_walk(self.func.body, (TensorLoad, lambda load: loaded.append(load.source)))
        written = [p for p in self.func.params if any(p.same_as(b) for b in stored)]
        return any(p.same_as(b) for p in written for b in loaded)

    @property
    def parallel(self) -> bool:
        """Whether one strip keeps all threads busy by itself."""
        found: list[bool] = []
        kind = tirx.ForKind.PARALLEL
        structural_walk(self.func.body, (tirx.For, lambda loop: found.append(loop.kind == kind)))
        return any(found)


def join(func: PrimFunc, strips: Sequence[Scheduled], threads: int) -> PrimFunc:
    """The kernel `func` by its scheduled strips, of one set of axes, larger strips first.

    Strips are spread over `threads`.  Where all threads work on one strip, as the rule has it, that
    is left so while there are few strips, or where each takes long.
    """
    body = _chosen(func, list(strips), threads)
    root = func.body.block
    block = s_tir.SBlock([], root.reads, root.writes, root.name_hint, body)
    return func.with_body(s_tir.SBlockRealize([], True, block))


def _chosen(func: PrimFunc, strips: list[Scheduled], threads: int) -> Any:
    """The first of the strips that is no longer than the kernel along any axis."""
    first, *rest = strips
    body = _loops(func, first, threads)
    if not rest:
        return body
    strip = first.strip
    pairs = zip(strip.axes, strip.sizes, strict=True)
    fits = [axis.extent >= size for axis, size in pairs if not _always(axis.extent, size)]
    return tirx.IfThenElse(tirx.all(*fits), body, _chosen(func, rest, threads)) if fits else body


def _always(extent: Expr, size: int) -> bool:
    """Whether an extent is never below a size: 16 strips of an open length have at least 16 places.

    TVM fails on what would be left for smaller ones, which have an axis of no places.
    """
    analyzer = sym.Analyzer()
    one, most = (tirx.const(number, "int64") for number in (1, 2**31))
    span = Range.from_min_extent(one, most)
    for var in tirx.analysis.undefined_vars(extent):
        analyzer.bind(var, span)
    return bool(size == 1 or analyzer.can_prove(extent >= size))


def _loops(func: PrimFunc, scheduled: Scheduled, threads: int) -> Any:
    """All strips of one kind: side by side, or one after another on all threads."""
    overlapping = any(size > 1 for size in scheduled.strip.sizes) and scheduled.accumulates
    if threads == 1 or overlapping:
        return _loop(func, scheduled, tirx.ForKind.SERIAL)
    if not scheduled.parallel:
        return _loop(func, scheduled, tirx.ForKind.PARALLEL)
    together = _loop(func, scheduled, tirx.ForKind.SERIAL)
    if kernel_cost.flops(scheduled.strip.func) > _LONG:
        return together
    alone = Scheduled(scheduled.strip, _on_one_thread(scheduled.func))
    apart = _loop(func, alone, tirx.ForKind.PARALLEL)
    return tirx.IfThenElse(_total(scheduled.strip) >= _ENOUGH * threads, apart, together)


def _on_one_thread(func: PrimFunc) -> PrimFunc:
    def loop(node: Any) -> Any:
        serial = node.kind == tirx.ForKind.PARALLEL
        kind = tirx.ForKind.SERIAL if serial else node.kind
        return tirx.For(
            node.loop_var, node.min, node.extent, kind, node.body, None, node.annotations
        )

    return func.with_body(structural_map(func.body, (tirx.For, loop)))


def _total(strip: Strip) -> Expr:
    """How many strips there are."""
    total: Expr = tirx.const(1, "int64")
    for axis, size in zip(strip.axes, strip.sizes, strict=True):
        total = total * _count(axis, size)
    return total


def _loop(func: PrimFunc, scheduled: Scheduled, kind: Any) -> Any:
    """The loop over all strips of one kind."""
    strip = scheduled.strip
    counts = [_count(axis, size) for axis, size in zip(strip.axes, strip.sizes, strict=True)]
    task = tirx.Var("strip", "int64")
    rest: Expr = task
    places: list[Expr] = []
    for i in reversed(range(len(counts))):
        place = rest if i == 0 else tirx.floormod(rest, counts[i])
        rest = tirx.floordiv(rest, counts[i])
        places.insert(0, _first(strip.axes[i], strip.sizes[i], place))
    body = _Placer(func, scheduled, places).body()
    return tirx.For(task, tirx.const(0, "int64"), _total(strip), kind, body)


def _count(axis: Axis, size: int) -> Expr:
    extent = axis.extent
    return extent if size == 1 else tirx.floordiv(extent + (size - 1), size)


def _first(axis: Axis, size: int, strip: Expr) -> Expr:
    return strip if size == 1 else tirx.min(strip * size, axis.extent - size)


class _Placer:
    """Puts the body of a scheduled strip at a place of the kernel's own buffers."""

    def __init__(self, func: PrimFunc, scheduled: Scheduled, places: Sequence[Expr]) -> None:
        strip = scheduled.strip
        renewed = s_tir.renew_defs(scheduled.func)
        self._body, params = renewed.body, list(renewed.params)
        self._buffers: dict[int, tuple[Any, dict[int, Expr]]] = {}
        # What is still open is a variable of its own in each copy of a function.
        self._sizes: dict[int, Expr] = {}
        for own, real in zip(params, func.params, strict=False):
            if not is_buffer(real):
                self._sizes[hash(own)] = real
                continue
            pairs = zip(own.shape, real.shape, strict=True)
            self._sizes |= {hash(a): b for a, b in pairs if isinstance(a, tirx.Var)}
            shifts = {
                along: place
                for axis, place in zip(strip.axes, places, strict=True)
                if (along := axis.of(real)) is not None
            }
            self._buffers[hash(own)] = (real, shifts)
        self._places = places

    def body(self) -> Any:
        """The statement."""
        return structural_map(
            self._body,
            [
                (TensorLoad, self._load),
                (tirx.BufferStore, self._store),
                (TensorRegion, self._region),
                (tirx.Var, self._variable),
            ],
        )

    def _variable(self, var: Var) -> Any:
        """A base or an open size by its value; buffers are replaced where they are accessed."""
        axis = base_of(var.name)
        place = self._sizes.get(hash(var)) if axis is None else self._places[axis]
        return var if place is None else _as(place, var)

    def _moved(self, buffer: Any, indices: Sequence[Expr]) -> tuple[Any, list[Expr]]:
        known = self._buffers.get(hash(buffer))
        if known is None:
            return buffer, list(indices)
        real, shifts = known
        return real, [
            _sum(index, shifts[dimension]) if dimension in shifts else index
            for dimension, index in enumerate(indices)
        ]

    def _load(self, load: Any) -> Any:
        return tirx.BufferLoad(*self._moved(load.source, load.indices))

    def _store(self, store: Any) -> Any:
        buffer, indices = self._moved(store.buffer, store.indices)
        return tirx.BufferStore(buffer, store.value, indices)

    def _region(self, region: Any) -> Any:
        buffer, mins = self._moved(region.source, [part.min for part in region.region])
        ranges = [
            Range.from_min_extent(low, part.extent)
            for low, part in zip(mins, region.region, strict=True)
        ]
        return TensorRegion(buffer, ranges, region.ty)


def _sum(index: Expr, place: Expr) -> Expr:
    """An index behind a place; lanes of a vector are each moved."""
    if isinstance(index, tirx.Ramp):
        return tirx.Ramp(_sum(index.base, place), index.stride, index.lanes)
    return index + _as(place, index)


def _as(place: Expr, like: Expr) -> Expr:
    """A place in the type of an index."""
    dtype = str(like.ty.dtype)
    return place if dtype == str(place.ty.dtype) else tirx.Cast(dtype, place)
