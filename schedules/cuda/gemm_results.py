"""From a block's sums to what a product leaves: by way of shared memory and the epilogue.

Blocks that divide the depth of a tile each have a part of its sums.  Those of a cluster read each
other's shared memory, and each stores its share of the tile; where there are no clusters, all write
their sums to memory, and another launch adds these up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod
from operator import add
from typing import Any

from tvm import tirx

from hybridc.schedules.cuda import prefetch, tir
from hybridc.schedules.cuda.neighbours import COUNT, Neighbours, neighbours
from hybridc.schedules.cuda.product_kernel import Product
from hybridc.schedules.cuda.tiling import FLOAT, PAD, Tiling

_JOINING = 256  # threads of a block that adds up what others have
Expr = Any
# Is told the row and the column in the block's tile, and the sum.
Put = Callable[[Expr, Expr, Expr], Any]


@dataclass(frozen=True)
class Part:
    """What a block has: the row and column of its tile, its batch, its share of the depth."""

    row: Expr
    column: Expr
    image: Expr
    split: Expr
    thread: Expr


@dataclass(frozen=True)
class Results:
    """Stores the sums of a tile, which are of the type `total`, by way of `memory`."""

    product: Product
    tiling: Tiling
    total: str
    memory: Any
    part: Part

    @cached_property
    def beside(self) -> Neighbours | None:
        """How neighbours are stored at once."""
        return neighbours(self.product, self.total)

    @cached_property
    def parts(self) -> Any:
        """Where blocks of no cluster leave their sums."""
        count = self.tiling.splits * prod(self.product.sizes[:3])
        return tir.buffer("parts", count, self.total, "global")

    @property
    def together(self) -> int:
        """Blocks that store a tile, each a share of it."""
        return self.tiling.together(self.product)

    @property
    def apart(self) -> bool:
        """Whether another launch adds up what the blocks have."""
        return self.tiling.splits > self.together

    def ahead(self) -> list[Any]:
        """Asks for what the epilogue reads for all rows alike, a column for each thread."""
        if self.apart:
            return []
        tiling, product, thread = self.tiling, self.product, self.part.thread
        m, n = tir.variable("row"), self.part.column * tiling.columns + thread
        held = tir.buffer("total", 1, self.total, "local")
        batch = tir.unflatten(self.part.image, product.batch)
        asked = prefetch.asked(self._of_held(batch, m, n, held), m)
        columns = product.sizes[2]
        bounds = [thread < tiling.columns] if tiling.columns < tiling.threads else []
        bounds += [n < columns] if columns % tiling.columns else []
        return [tir.when(bounds, tir.sequence(asked))] if asked else []

    def stored(self, each: Callable[[Put], Any]) -> Any:
        """What a block does with its sums, all of which `each` goes through."""
        vector = COUNT if self.beside else 1
        threads, shares = self.tiling.threads, self.together
        count = self.tiling.rows * self.tiling.columns // vector // shares

        def turn(i: Expr) -> Any:
            q = i * threads + self.part.thread
            inside = [q < count] if count % threads else []
            first = self.part.split * count if shares > 1 else tir.number(0)
            return tir.when(inside, self._result(first + q, vector))

        out = tir.loop(-(-count // threads), turn, "out")
        if shares == 1:
            return tir.sequence([each(self._put), tir.barrier(), out])
        # The memory of a block is there until all have read it.
        done = tir.call(f"cluster_done<{shares}>")
        return tir.sequence([each(self._put), tir.call(f"cluster<{shares}>"), out, done])

    def joined(self, body: Any) -> Any:
        """The whole kernel, with the launch that adds up where there is one."""
        if not self.apart:
            return body
        return tir.allocated([self.parts], tir.sequence([body, self._joining()]))

    def _place(self, row: Expr, column: Expr) -> Expr:
        return tir.address(self.memory, (row * (self.tiling.columns + PAD) + column) * FLOAT)

    def _put(self, row: Expr, column: Expr, value: Expr) -> Any:
        return tir.call(f"put<{tir.c_type(self.total)}>", self._place(row, column), value)

    def _result(self, q: Expr, vector: int) -> Any:
        """So many sums side by side: through the epilogue, or to the parts of others."""
        tiling = self.tiling
        across = tiling.columns // vector
        row, column = q // across, q % across
        place = self._place(row, column * vector)
        # Of blocks that store a tile together, each has what all of them summed up.
        places = [place]
        if self.together > 1:
            places = [tir.beside(place, tir.number(block)) for block in range(self.together)]
        m, n = self.part.row * tiling.rows + row, self.part.column * across + column
        _, rows, columns, _ = self.product.sizes
        bounds = [m < rows] if rows % tiling.rows else []
        bounds += [n < columns // vector] if columns % tiling.columns else []
        if self.beside is not None:
            return tir.when(bounds, self._vector(self.beside, m, n, places))
        total = reduce(add, (tir.got(self.total, each) for each in places))
        if not self.apart:
            batch = tir.unflatten(self.part.image, self.product.batch)
            return tir.when(bounds, self._store(batch, m, n, total))
        return tir.when(bounds, tirx.BufferStore(self.parts, total, [self._row(m) * columns + n]))

    def _row(self, m: Expr) -> Expr:
        """The row of the parts."""
        batches, rows, _, _ = self.product.sizes
        return (self.part.split * batches + self.part.image) * rows + m

    def _vector(self, beside: Neighbours, m: Expr, n: Expr, places: list[Expr]) -> Any:
        """Neighbouring sums at once; `n` counts vectors."""
        product = self.product
        if self.apart:
            at = (self._row(m) * (product.sizes[2] // COUNT) + n) * COUNT
            store = beside.kept(self.parts, at)
        else:
            axes = {
                **tir.unflatten(self.part.image, product.batch),
                **tir.unflatten(m, product.left.own),
                **tir.unflatten(n, beside.axes(product.right.own)),
            }
            store = beside.store(axes)
        got = tir.call("load4", beside.first, places[0])
        added = (tir.call("add4", beside.first, place) for place in places[1:])
        return tir.allocated([beside.held], tir.sequence([got, *added, store]))

    def _store(self, batch: Mapping[Any, Expr], m: Expr, n: Expr, total: Expr) -> Any:
        """One sum through the epilogue to the output."""
        held = tir.buffer("total", 1, self.total, "local")
        kept = tirx.BufferStore(held, total, [tir.number(0)])
        return tir.allocated([held], tir.sequence([kept, self._of_held(batch, m, n, held)]))

    def _of_held(self, batch: Mapping[Any, Expr], m: Expr, n: Expr, held: Any) -> Any:
        """The store of a sum that is held."""
        product = self.product
        axes = {
            **batch,
            **tir.unflatten(m, product.left.own),
            **tir.unflatten(n, product.right.own),
        }
        indices, value = product.store(axes, tirx.BufferLoad(held, [tir.number(0)]))
        return tirx.BufferStore(product.output, value, indices)

    def _joining(self) -> Any:
        """A launch that adds up the parts of each sum, and stores it."""
        batches, rows, columns, _ = self.product.sizes
        count = batches * rows * columns
        block, thread = tir.variable("block"), tir.variable("thread")
        q = block * _JOINING + thread
        batch = tir.unflatten(q // (rows * columns), self.product.batch)
        total: Expr = tirx.BufferLoad(self.parts, [q])
        for split in range(1, self.tiling.splits):
            total = total + tirx.BufferLoad(self.parts, [q + split * count])
        body = self._store(batch, q // columns % rows, q % columns, total)
        body = tir.when([q < count] if count % _JOINING else [], body)
        axes = [("blockIdx.x", block, -(-count // _JOINING)), ("threadIdx.x", thread, _JOINING)]
        return tir.launched(axes, body)
