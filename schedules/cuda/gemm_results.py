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
from hybridc.schedules.cuda.gemm_vectors import Vectors, Walk
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
        shares = self.together
        meet, done = tir.barrier(), list[Any]()
        if shares > 1:
            meet = tir.call(f"cluster<{shares}>")
            # The memory of a block is there until all have read it.
            done = [tir.call(f"cluster_done<{shares}>")]
        put = each(self._put)
        if self.beside is None:
            return tir.sequence([put, meet, self._one_by_one(), *done])
        vectors = self._vectors(self.beside)
        statements = [put, *vectors.begun(), meet, vectors.stored(), *done]
        return tir.allocated(vectors.arrays, tir.sequence(statements))

    def joined(self, body: Any) -> Any:
        """The whole kernel, with the launch that adds up where there is one."""
        if not self.apart:
            return body
        return tir.allocated([self.parts], tir.sequence([body, self._joining()]))

    def _place(self, row: Expr, column: Expr) -> Expr:
        return tir.address(self.memory, (row * (self.tiling.columns + PAD) + column) * FLOAT)

    def _put(self, row: Expr, column: Expr, value: Expr) -> Any:
        return tir.call(f"put<{tir.c_type(self.total)}>", self._place(row, column), value)

    def _walk(self, vector: int) -> Walk:
        """Vectors of a block's share of the tile."""
        tiling, shares = self.tiling, self.together
        count = tiling.rows * tiling.columns // vector // shares
        first = self.part.split * count if shares > 1 else tir.number(0)
        across = tiling.columns // vector
        return Walk(count, across, first, self.part.thread, tiling.threads)

    def _places(self, row: Expr, column: Expr) -> list[Expr]:
        """Where sums lie: of blocks that store a tile together, in the memory of each."""
        place = self._place(row, column)
        if self.together == 1:
            return [place]
        return [tir.beside(place, tir.number(block)) for block in range(self.together)]

    def _bounds(self, m: Expr | None, n: Expr, vector: int) -> list[Expr]:
        """What must hold of a row and a column of vectors lest they are behind the output."""
        _, rows, columns, _ = self.product.sizes
        bounds = [m < rows] if m is not None and rows % self.tiling.rows else []
        return bounds + ([n < columns // vector] if columns % self.tiling.columns else [])

    def _one_by_one(self) -> Any:
        """Each sum through the epilogue, or to the parts of others."""
        tiling, walk = self.tiling, self._walk(1)

        def turn(i: Expr) -> Any:
            row, column = walk.place(i)
            m, n = self.part.row * tiling.rows + row, self.part.column * tiling.columns + column
            total = reduce(add, (tir.got(self.total, each) for each in self._places(row, column)))
            if self.apart:
                at = self._row(m) * self.product.sizes[2] + n
                store = tirx.BufferStore(self.parts, total, [at])
            else:
                store = self._store(tir.unflatten(self.part.image, self.product.batch), m, n, total)
            return tir.when(walk.inside(i) + self._bounds(m, n, 1), store)

        return tir.loop(walk.turns, turn, "out")

    def _vectors(self, beside: Neighbours) -> Vectors:
        """The same for neighbours at once."""
        tiling, product = self.tiling, self.product
        walk = self._walk(COUNT)

        def at(row: Expr, column: Expr) -> tuple[Expr, Expr]:
            return self.part.row * tiling.rows + row, self.part.column * walk.across + column

        def axes(row: Expr, column: Expr) -> Mapping[Any, Expr]:
            m, n = at(row, column)
            return {
                **tir.unflatten(self.part.image, product.batch),
                **tir.unflatten(m, product.left.own),
                **tir.unflatten(n, beside.axes(product.right.own)),
            }

        def bounds(row: Expr | None, column: Expr) -> list[Expr]:
            m, n = at(tir.number(0) if row is None else row, column)
            return self._bounds(None if row is None else m, n, COUNT)

        def store(beside: Neighbours, row: Expr, column: Expr) -> list[Any]:
            first, *others = self._places(row, column * COUNT)
            added = [tir.call("add4", beside.first, place) for place in others]
            m, n = at(row, column)
            kept = (
                beside.kept(self.parts, (self._row(m) * (product.sizes[2] // COUNT) + n) * COUNT)
                if self.apart
                else beside.store(axes(row, column))
            )
            return [tir.call("load4", beside.first, first), *added, kept]

        rows = tuple(axis for axis, _ in product.left.own)
        return Vectors(beside, walk, rows, axes, bounds, store, reads=not self.apart)

    def _row(self, m: Expr) -> Expr:
        """The row of the parts."""
        batches, rows, _, _ = self.product.sizes
        return (self.part.split * batches + self.part.image) * rows + m

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
