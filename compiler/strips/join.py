"""One kernel of all sizes, made of scheduled strips: loops over strips, chosen by the size.

The last strip along an axis begins where it ends with the axis, so that strips overlap, and what
lies in two is computed twice, the same both times.  Sizes below that of the largest strip are left
to smaller ones; the smallest is one place.  Of a product with weights, shorter strips also compute
what longer ones leave; and all short strips meet some weights before others are read (`INSIDE`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import s_tir, tirx
from tvm.ir import Range
from tvm.ir.expr import TensorLoad, TensorRegion
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.ir.accesses import stored_and_loaded
from hybridc.compiler.kernels import kernel_cost
from hybridc.compiler.strips.axes import Expr, Var, is_buffer
from hybridc.compiler.strips.choose import has_weights
from hybridc.compiler.strips.cut import Strip, base_of
from hybridc.compiler.strips.flat import as_turn, turns_of
from hybridc.compiler.strips.runs import Run, always, following, whole

# Marks the loop over weights in which all strips of one kind may be computed.
INSIDE = "hybridc.inside"
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
        stored, loaded = stored_and_loaded(self.func.body)
        return any(param in stored and param in loaded for param in self.func.params)

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
    body = (_following if has_weights(func) else _chosen)(func, list(strips), threads)
    root = func.body.block
    block = s_tir.SBlock([], root.reads, root.writes, root.name_hint, body)
    return func.with_body(s_tir.SBlockRealize([], True, block))


def _chosen(func: PrimFunc, strips: list[Scheduled], threads: int) -> Any:
    """The first of the strips that is no longer than the kernel along any axis."""
    first, *rest = strips
    strip = first.strip
    pairs = [(axis.extent, size) for axis, size in zip(strip.axes, strip.sizes, strict=True)]
    body = _loops(func, first, [whole(*pair) for pair in pairs], threads)
    if not rest:
        return body
    fits = [extent >= size for extent, size in pairs if not always(extent, size)]
    return tirx.IfThenElse(tirx.all(*fits), body, _chosen(func, rest, threads)) if fits else body


def _following(func: PrimFunc, strips: list[Scheduled], threads: int) -> Any:
    """Strips that differ along the last axis, one kind after the other."""
    last = strips[0].strip.axes[-1].extent
    sizes = [each.strip.sizes[-1] for each in strips]
    if len(sizes) > 1 and always(last, sizes[-2]):
        sizes.pop()
    parts: list[Any] = []
    for each, run in zip(strips, following(last, sizes), strict=False):
        outer = [whole(axis.extent, 1) for axis in each.strip.axes[:-1]]
        body = _loops(func, each, [*outer, run], threads)
        parts += [*run.before, body if sizes == [1] else tirx.IfThenElse(run.count > 0, body, None)]
    return parts[0] if len(parts) == 1 else tirx.SeqStmt(parts)


def _loops(func: PrimFunc, scheduled: Scheduled, along: Sequence[Run], threads: int) -> Any:
    """All strips of one kind: side by side, or one after another on all threads."""
    overlapping = any(size > 1 for size in scheduled.strip.sizes) and scheduled.accumulates
    if not overlapping and (threads == 1 or scheduled.parallel):
        inside = _loop(func, scheduled, along, tirx.ForKind.SERIAL, inside=True)
        if inside is not None:
            return inside
    if threads == 1 or overlapping:
        return _loop(func, scheduled, along, tirx.ForKind.SERIAL)
    if not scheduled.parallel:
        return _loop(func, scheduled, along, tirx.ForKind.PARALLEL)
    flat = _flat(func, scheduled, along)
    if flat is not None:
        return flat
    together = _loop(func, scheduled, along, tirx.ForKind.SERIAL)
    if kernel_cost.flops(scheduled.strip.func) > _LONG:
        return together
    alone = Scheduled(scheduled.strip, _on_one_thread(scheduled.func))
    apart = _loop(func, alone, along, tirx.ForKind.PARALLEL)
    return tirx.IfThenElse(_total(along) >= _ENOUGH * threads, apart, together)


def _on_one_thread(func: PrimFunc) -> PrimFunc:
    def loop(node: Any) -> Any:
        serial = node.kind == tirx.ForKind.PARALLEL
        kind = tirx.ForKind.SERIAL if serial else node.kind
        return tirx.For(
            node.loop_var, node.min, node.extent, kind, node.body, None, node.annotations
        )

    return func.with_body(structural_map(func.body, (tirx.For, loop)))


def _total(along: Sequence[Run]) -> Expr:
    """How many strips there are."""
    total: Expr = tirx.const(1, "int64")
    for run in along:
        total = total * run.count
    return total


def _loop(
    func: PrimFunc, scheduled: Scheduled, along: Sequence[Run], kind: Any, inside: bool = False
) -> Any:
    """The loop over all strips of one kind, around them or `inside`; None if it has no place."""
    around = _spread if kind == tirx.ForKind.PARALLEL else _nested
    places, loop = around(along)
    body = _Placer(func, scheduled, places).body()
    return _within(body, loop) if inside else loop(body)


def _nested(along: Sequence[Run]) -> tuple[list[Expr], Callable[[Any], Any]]:
    """Where strips begin, and a loop for each axis: TVM need not look through quotients."""
    strips = [tirx.Var("strip", "int64") for _ in along]

    def loop(body: Any) -> Any:
        for run, strip in reversed(list(zip(along, strips, strict=True))):
            kind = tirx.ForKind.SERIAL
            body = tirx.For(strip, tirx.const(0, "int64"), run.count, kind, body)
        return body

    return [run.first(strip) for run, strip in zip(along, strips, strict=True)], loop


def _flat(func: PrimFunc, scheduled: Scheduled, along: Sequence[Run]) -> Any | None:
    """One loop over the turns of all strips; None if a strip is more than one parallel loop.

    Threads take turns next to each other: whole strips where there are many, parts of one where
    there are few.  Two loops for the two would be twice the code.
    """
    turns = turns_of(scheduled.func.body)
    if turns is None:
        return None
    task = tirx.Var("turn", "int64")
    places, loop = _spread(along, task, turns)
    body = _Placer(func, scheduled, places).body()
    return loop(as_turn(body, tirx.floormod(task, turns)))


def _spread(
    along: Sequence[Run], task: Any = None, turns: int = 1
) -> tuple[list[Expr], Callable[[Any], Any]]:
    """Where strips begin, and one loop over all of them, or all their turns, on all threads."""
    task = tirx.Var("strip", "int64") if task is None else task
    rest: Expr = task if turns == 1 else tirx.floordiv(task, turns)
    places: list[Expr] = []
    for i, run in reversed(list(enumerate(along))):
        place = rest if i == 0 else tirx.floormod(rest, run.count)
        rest = tirx.floordiv(rest, run.count)
        places.insert(0, run.first(place))

    def loop(body: Any) -> Any:
        kind = tirx.ForKind.PARALLEL
        return tirx.For(task, tirx.const(0, "int64"), _total(along) * turns, kind, body)

    return places, loop


def _within(node: Any, loop: Callable[[Any], Any]) -> Any:
    """A body with a loop in the one that is marked; None if that is not all there is to it."""
    if isinstance(node, s_tir.SBlockRealize) and not node.iter_values:
        block = node.block
        inner = _within(block.body, loop)
        made = s_tir.SBlock(
            [],
            block.reads,
            block.writes,
            block.name_hint,
            inner,
            None,
            block.alloc_buffers,
            None,
            block.annotations,
        )
        return None if inner is None else s_tir.SBlockRealize([], node.predicate, made)
    if not isinstance(node, tirx.For):
        return None
    others = {key: value for key, value in node.annotations.items() if key != INSIDE}
    inner = loop(node.body) if INSIDE in node.annotations else _within(node.body, loop)
    if inner is None:
        return None
    return tirx.For(node.loop_var, node.min, node.extent, node.kind, inner, None, others)


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
                along: place if (window := axis.window(real)) is None else place * window.stride
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
