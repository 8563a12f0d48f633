"""Products of few rows on a GPU, written out: the other side is read once, as fast as memory goes.

A thread reads 16 bytes of the large side at a time, several of them before it uses the first, and
multiplies them by what the few rows have there.  Lanes of a warp, warps of a block and blocks of a
cluster divide the depth; their sums meet by shuffles, and then in shared memory.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

from tvm import tirx

from hybridc.compiler.cuda.gpu import WARP
from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.cuda import operands, prefetch, tir
from hybridc.schedules.cuda.packed_weights import Weights
from hybridc.schedules.cuda.product_kernel import Operand, substituted
from hybridc.schedules.cuda.thin_match import WORD, Thin, Thread, shared

Expr = Any


def kernel(match: Thin, how: Thread) -> PrimFunc:
    """The kernel that computes a thin product so."""
    return Writer(match, how).function()


class Writer:
    """Writes one kernel."""

    def __init__(self, match: Thin, how: Thread) -> None:
        self.match, self.how = match, how
        batches, self.few, many, self.depth = match.sizes
        self.columns = how.lanes * match.wide
        across = -(-many // self.columns)
        self.count = across * batches * how.splits
        self.block, self.thread = tir.variable("block"), tir.variable("thread")
        self.split, group = self.block % how.splits, self.block // how.splits
        self.first = group % across * self.columns
        self.batch: Mapping[Any, Expr] = tir.unflatten(group // across, match.product.batch)
        self.memory = tir.buffer(
            "sums_of_warps", shared(match, how) // WORD, match.total, "shared.dyn"
        )
        self.sums = tir.buffer("sums", match.sums, match.total, "local")
        raw = "int32" if match.weights else match.total
        self.read = tir.buffer("read", match.held * how.unroll, raw, "local")
        self.own = self._own()

    def _own(self) -> list[Any]:
        """Registers beside these."""
        match = self.match
        # What the products are made with: of weights that are packed, integers and their scales.
        self.large = self.read
        if match.weights:
            size = (match.deep + 1) * match.wide
            self.large = tir.buffer("weights", size, match.total, "local")
        self.other = tir.buffer("other", match.deep, match.total, "local")
        return [self.large, self.other] if match.weights else [self.other]

    def function(self) -> PrimFunc:
        """The whole kernel."""
        zero, count = tirx.const(0, self.match.total), self.match.sums
        zeros = tir.unrolled(count, lambda i: tirx.BufferStore(self.sums, zero, [i]), "zero")
        each = self.how.deep * self.match.deep * self.how.unroll
        walk = tir.loop(-(-self.depth // each), self._step, "step")
        body = tir.sequence([*self._ahead(), zeros, walk, self._meet(), *self._results()])
        body = tir.allocated([self.memory, self.sums, self.read, *self.own], body)
        threads = ("threadIdx.x", self.thread, self.how.threads)
        launched = tir.launched([("blockIdx.x", self.block, self.count), threads], body)
        return self.match.product.func.with_body(launched)

    def _step(self, step: Expr) -> Any:
        """Some reads of the large side, and then their products."""
        places = [self._depth(step, turn) for turn in range(self.how.unroll)]
        reads = [self._read(k, turn) for turn, k in enumerate(places)]
        return tir.sequence([*reads, *(self._multiply(k, turn) for turn, k in enumerate(places))])

    def _depth(self, step: Expr, turn: int) -> Expr:
        """Where a thread is along the depth."""
        how = self.how
        lane = self.split * (how.threads // how.lanes) + self.thread // how.lanes
        return ((step * how.unroll + turn) * how.deep + lane) * self.match.deep

    def _column(self) -> Expr:
        """The first column of a thread."""
        return self.first + self.thread % self.how.lanes * self.match.wide

    def _inside(self, k: Expr, column: Expr | None = None) -> list[Expr]:
        """What must hold lest a read goes beyond a side."""
        each = self.how.deep * self.match.deep * self.how.unroll
        found = [k < self.depth] if self.depth % each else []
        many = self.match.many.extent
        if column is not None and many % self.columns:
            found.append(column < many)
        return found

    def _read(self, k: Expr, turn: int) -> Any:
        """One read of the large side, as floats."""
        match, column = self.match, self._column()
        at = tir.number(turn * match.held)
        if match.weights:
            return self._packed(match.weights, column, k, tir.address(self.read, at))
        if match.along == "none":
            return tirx.BufferStore(self.read, self._element(match.many, column, k), [at])
        return self._chunk(match.many, (column, k), tir.address(self.read, at))

    def _packed(self, weights: Weights, column: Expr, k: Expr, to: Expr) -> Any:
        """One read of weights as they lie, and of their scales."""
        axes, inside = self._axes(self.match.many, column, k)
        loads = (substituted(load, axes) for load in (weights.integers, weights.scales))
        valid = tir.number(1)
        if inside:
            valid = tirx.Select(tirx.all(*inside), valid, tir.number(0))
        return tir.call("load_weights", to, *map(tirx.address_of, loads), valid)

    def _unpacked(self, turn: int) -> list[Any]:
        """The integers of a read as they are multiplied, and their scales behind them."""
        match = self.match
        if match.weights is None:
            return []
        read = self.read, turn * match.held
        places = (f"integers<{match.weights.bits}>", 0), ("scales", match.deep * match.wide)
        return [called(name, [(self.large, at), read]) for name, at in places]

    def _axes(self, side: Operand, own: Expr, k: Expr) -> tuple[dict[Any, Expr], list[Expr]]:
        """The axes at a place of a side, and what must hold there."""
        axes = {
            **self.batch,
            **tir.unflatten(own, side.own),
            **tir.unflatten(k, self.match.product.depth),
        }
        return axes, self._inside(k, own if side is self.match.many else None)

    def _element(self, side: Operand, own: Expr, k: Expr) -> Expr:
        """What a side has at a place, zero beyond its end."""
        axes, inside = self._axes(side, own, k)
        value = substituted(side.value, axes).astype(self.match.total)
        zero = tirx.const(0, self.match.total)
        return tirx.if_then_else(tirx.all(*inside), value, zero) if inside else value

    def _chunk(self, side: Operand, place: tuple[Expr, Expr], to: Expr) -> Any:
        """The 16 bytes that a side has from a place on."""
        axes, inside = self._axes(side, *place)
        load, _ = operands.plain(side.value)
        valid = tir.number(1)
        if inside:
            valid = tirx.Select(tirx.all(*inside), valid, tir.number(0))
        widen = f"widen<{tir.c_type(side.dtype)}, {self.match.chunk}>"
        name = "load16" if self.match.packed else widen
        return tir.call(name, to, tirx.address_of(substituted(load, axes)), valid)

    def _multiply(self, k: Expr, turn: int) -> Any:
        """Add the products of one read with each of the few rows."""
        match = self.match
        at = 0 if match.weights else turn * match.held
        vector = match.deep > 1 and match.lies(match.few) == "depth"

        def row(f: int) -> Any:
            own = tir.number(f)
            if vector:
                reads = [
                    self._chunk(match.few, (own, k + d), tir.address(self.other, tir.number(d)))
                    for d in range(0, match.deep, match.chunk)
                ]
            else:
                values = (self._element(match.few, own, k + d) for d in range(match.deep))
                reads = [
                    tirx.BufferStore(self.other, x, [tir.number(d)]) for d, x in enumerate(values)
                ]
            return tir.sequence([*reads, *self._added(f, at)])

        return tir.sequence([*self._unpacked(turn), *map(row, range(self.few))])

    def _added(self, f: int, at: int) -> list[Any]:
        match = self.match
        if match.packed:
            places = [(self.sums, f), (self.other, 0), (self.read, at)]
            return [called(f"dot_{match.few.dtype}_{match.many.dtype}", places)]
        if match.weights:
            places = [(self.sums, f * match.wide), (self.other, 0), (self.large, 0)]
            places.append((self.large, match.deep * match.wide))
            return [called(f"dot_weights<{match.weights.bits}>", places)]
        pairs = [(d, w) for d in range(match.deep) for w in range(match.wide)]
        found: list[Any] = []
        for d, w in pairs:
            place = tir.number(f * match.wide + w)
            term = self._load(self.other, d) * self._load(self.large, at + d * match.wide + w)
            total = tirx.BufferLoad(self.sums, [place]) + term
            found.append(tirx.BufferStore(self.sums, total, [place]))
        return found

    def _load(self, buffer: Any, place: int) -> Expr:
        return tirx.BufferLoad(buffer, [tir.number(place)])

    def _meet(self) -> Any:
        """Sums of the lanes of a warp; those of its first lanes to shared memory."""
        how, match, count = self.how, self.match, self.few * self.match.wide
        lane, warp = self.thread % WARP, self.thread // WARP

        def put(i: Expr) -> Any:
            f, w = i // match.wide, i % match.wide
            column = lane * match.wide + w
            place = (warp * self.few + f) * self.columns + column
            value = tirx.BufferLoad(self.sums, [i])
            name = f"put<{tir.c_type(match.total)}>"
            return tir.call(name, tir.address(self.memory, place), value)

        total = tir.call(
            f"lanes_total<{count}, {how.lanes}>", tir.address(self.sums, tir.number(0))
        )
        return tir.sequence([total, tir.when([lane < how.lanes], tir.unrolled(count, put))])

    def _results(self) -> list[Any]:
        """Each sum over the warps, through the epilogue to the output."""
        how = self.how
        out = self._each(self._result)
        if how.splits == 1:
            return [tir.barrier(), out]
        return [tir.call(f"cluster<{how.splits}>"), out, tir.call(f"cluster_done<{how.splits}>")]

    def _each(self, result: Callable[[Expr, Expr], Any]) -> Any:
        """Do something with a thread's share of the results: number and column of each."""
        how, many, count = self.how, self.match.many.extent, self.few * self.columns
        each = how.threads * how.splits

        def turn(i: Expr) -> Any:
            q = (i * how.threads + self.thread) * how.splits + self.split
            column = self.first + q % self.columns
            bounds = [q < count] if count % each else []
            bounds += [column < many] if many % self.columns else []
            return tir.when(bounds, result(q, column))

        return tir.loop(-(-count // each), turn, "out")

    def _ahead(self) -> list[Any]:
        """What the epilogue reads, asked for before it is needed."""
        held = tir.buffer("total", 1, self.match.total, "local")

        def asked(q: Expr, column: Expr) -> list[Any]:
            return prefetch.asked(self._store(q, column, held))

        if not asked(tir.number(0), self.first):
            return []
        return [self._each(lambda *place: tir.sequence(asked(*place)))]

    def _parts(self, q: Expr) -> list[Expr]:
        """What the warps of all blocks have of a sum."""
        own = [
            tir.address(self.memory, q + warp * self.few * self.columns)
            for warp in range(self.how.warps)
        ]
        if self.how.splits == 1:
            return own
        splits = map(tir.number, range(self.how.splits))
        return [tir.beside(place, split) for split in splits for place in own]

    def _result(self, q: Expr, column: Expr) -> Any:
        match = self.match
        held = tir.buffer("total", 1, match.total, "local")
        total = reduce(add, (tir.got(match.total, part) for part in self._parts(q)))
        store = tirx.BufferStore(held, total, [tir.number(0)])
        return tir.allocated([held], tir.sequence([store, self._store(q, column, held)]))

    def _store(self, q: Expr, column: Expr, held: Any) -> Any:
        """The store of a sum that is held."""
        match = self.match
        axes = {
            **self.batch,
            **tir.unflatten(q // self.columns, match.few.own),
            **tir.unflatten(column, match.many.own),
        }
        indices, value = match.product.store(axes, tirx.BufferLoad(held, [tir.number(0)]))
        return tirx.BufferStore(match.product.output, value, indices)


def called(name: str, places: Sequence[tuple[Any, int]]) -> Any:
    """A call of a function with elements of buffers."""
    return tir.call(name, *(tir.address(buffer, tir.number(at)) for buffer, at in places))
