"""What becomes of an attention's sums on a GPU: joined, divided by their totals, and stored."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tvm import tirx

from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.attention import Flash
from hybridc.schedules.cuda.attention_cut import PAD, Cut

Expr = Any
_FLOAT = 4
_THREADS = 256  # of a block that joins what others have summed up
_SUM, _TOTAL, _LARGEST = range(3)  # what `merge` gives


@dataclass(frozen=True)
class Results:
    """Writes the end of an attention kernel, and the launch that joins parts of it."""

    match: Flash
    cut: Cut

    @cached_property
    def _parts(self) -> Any:
        """What each of the blocks that divide the keys has summed up."""
        heads, rows, _ = self.match.sizes
        count = self.cut.splits * heads * rows * self.match.features
        return tir.buffer("parts", count, "float32", "global")

    @cached_property
    def _marks(self) -> Any:
        """The largest score and the total of each row of these."""
        heads, rows, _ = self.match.sizes
        return tir.buffer("marks", 2 * self.cut.splits * heads * rows, "float32", "global")

    def of_block(self, memory: Any, thread: Expr, head: Expr, first: Expr, split: Expr) -> Any:
        """Store what lies in shared memory; rows begin at `first`.

        The blocks of a cluster read what all have, and each stores its share.
        """
        cut, features = self.cut, self.match.features
        rows, blocks = self.match.sizes[1], cut.together
        count = min(cut.rows, rows) * features
        share = -(-count // blocks)

        def turn(i: Expr) -> Any:
            p = i * cut.threads + thread
            q = p + split * share if blocks > 1 else p
            row, column = q // features, q % features
            body = self._element(memory, row, column, (head, first + row, split))
            bounds = [p < share] if share % cut.threads else []
            bounds += [q < count] if count % blocks else []
            bounds += [first + row < rows] if rows % cut.rows and rows > cut.rows else []
            return tir.when(bounds, body)

        out = tir.loop(-(-share // cut.threads), turn, "out")
        if blocks == 1:
            return tir.sequence([tir.barrier(), out])
        # The memory of a block is there until all have read it.
        meet, done = (tir.call(f"{name}<{blocks}>") for name in ("cluster", "cluster_done"))
        return tir.sequence([meet, out, done])

    def _element(self, memory: Any, row: Expr, column: Expr, at: tuple[Expr, Expr, Expr]) -> Any:
        """Store one; `at` is its head, its row of all, and which block's part it is."""
        cut, (head, s, split) = self.cut, at
        value = row * (cut.width + PAD) + column
        mark = cut.key_warps * cut.part_floats + row * 2
        heads, rows, _ = self.match.sizes
        place = (head, s, column, (split * heads + head) * rows + s)
        if cut.alone:
            found = [tir.address(memory, n * _FLOAT) for n in (value, mark + 1)]
            return self._stored([tir.got("float32", each) for each in found], *place)
        places = (tir.address(memory, n * _FLOAT) for n in (value, mark))
        steps = (cut.part_floats, cut.rows * 2)
        keep = self._kept if cut.splits > cut.together else self._stored
        return self._merged((cut.key_warps, cut.together), places, steps, keep, place)

    def _merged(
        self, parts: tuple[int, int], places: Any, steps: tuple[int, int], keep: Any, at: Any
    ) -> Any:
        """Join parts of so many warps and blocks, and keep what they make."""
        merged = tir.buffer("merged", 3, "float32", "local")
        value, mark = places
        to = tir.address(merged, tir.number(0))
        call = tir.call(
            f"merge<{parts[0]}, {parts[1]}>",
            to,
            value,
            tir.number(steps[0]),
            mark,
            tir.number(steps[1]),
        )
        found = [tirx.BufferLoad(merged, [tir.number(i)]) for i in range(3)]
        return tir.allocated([merged], tir.sequence([call, keep(found, *at)]))

    def _stored(self, found: Any, head: Expr, row: Expr, column: Expr, number: Expr) -> Any:
        del number
        product = self.match.values
        axes = {
            **tir.unflatten(head, product.batch),
            **tir.unflatten(row, product.left.own),
            **tir.unflatten(column, product.right.own),
        }
        indices, value = self.match.result(axes, found[_SUM], found[_TOTAL], self.cut.alone)
        return tirx.BufferStore(self.match.written, value, indices)

    def _kept(self, found: Any, head: Expr, row: Expr, column: Expr, number: Expr) -> Any:
        del head, row
        marks = tir.sequence(
            tirx.BufferStore(self._marks, found[place], [number * 2 + i])
            for i, place in enumerate((_LARGEST, _TOTAL))
        )
        at = number * self.match.features + column
        part = tirx.BufferStore(self._parts, found[_SUM], [at])
        return tir.sequence([part, tir.when([tirx.EQ(column, tir.number(0))], marks)])

    def joined(self, first: Any) -> Any:
        """The launch, and where keys were divided one more that joins the parts."""
        if self.cut.splits == self.cut.together:
            return first
        heads, rows, _ = self.match.sizes
        features = self.match.features
        count = heads * rows * features
        block, thread = tir.variable("block"), tir.variable("thread")
        q = block * _THREADS + thread
        number = q // features
        places = (tir.address(self._parts, q), tir.address(self._marks, number * 2))
        at = (number // rows, number % rows, q % features, number)
        body = self._merged(
            (self.cut.splits, 1), places, (count, 2 * heads * rows), self._stored, at
        )
        body = tir.when([q < count] if count % _THREADS else [], body)
        axes = [("blockIdx.x", block, -(-count // _THREADS)), ("threadIdx.x", thread, _THREADS)]
        return tir.allocated(
            [self._parts, self._marks], tir.sequence([first, tir.launched(axes, body)])
        )
