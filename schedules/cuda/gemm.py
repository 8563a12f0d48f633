"""Products on a GPU, written out: tiles in shared memory, copies ahead of the multiplications.

A block computes a tile of the result.  While it multiplies one pair of tiles along the depth, the
next ones are copied asynchronously into other stages of shared memory; one barrier a step tells
that a stage has arrived and that the one before it is free, or the one before that where products
are asynchronous too.  The sums go through shared memory to
the output, so that neighbouring threads write neighbouring elements whatever the epilogue is.
Where tiles are too few for the GPU, several blocks divide the depth of one (split-K), and another
launch adds up what they have, in a fixed order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import tirx

from hybridc.compiler.cuda.gpu import WARP
from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.compute import Compute, Shared, Warp, warp_of
from hybridc.schedules.cuda.neighbours import COUNT, Neighbours, neighbours
from hybridc.schedules.cuda.operands import ROW_BYTES, Place, Tile, source
from hybridc.schedules.cuda.product_kernel import Product

_JOINING = 256  # threads of a block that adds up what others have
# Floats behind each row of sums in shared memory: what is stored at once, eight floats of each of
# four rows, lies in all banks then.
_PAD = 8
# Rows of tiles that are computed together, column by column: as many blocks as run at a time on 100
# to 150 multiprocessors have about as many rows as columns to read then.
_BAND = 16
_FLOAT = 4
Expr = Any


@dataclass(frozen=True)
class Tiling:
    """How a product is cut: a block's tile, a warp's tile, stages of copies, parts of the depth."""

    rows: int
    columns: int
    warp_rows: int
    warp_columns: int
    stages: int
    splits: int = 1

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return WARP * (self.rows // self.warp_rows) * (self.columns // self.warp_columns)

    @property
    def stage_bytes(self) -> int:
        """Bytes of one stage: a tile of each side."""
        return (self.rows + self.columns) * ROW_BYTES

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block: the stages, or afterwards the sums."""
        return max(self.stages * self.stage_bytes, self.rows * (self.columns + _PAD) * _FLOAT)

    def blocks(self, product: Product) -> tuple[int, int, int]:
        """Blocks along rows, columns and batch."""
        batch, rows, columns, _ = product.sizes
        return -(-rows // self.rows), -(-columns // self.columns), batch


def kernel(product: Product, tiling: Tiling, compute: Compute) -> PrimFunc:
    """The kernel that computes a product so."""
    return _Writer(product, tiling, compute).function()


class _Writer:
    """Writes one kernel."""

    def __init__(self, product: Product, tiling: Tiling, compute: Compute) -> None:
        self.product, self.tiling, self.compute = product, tiling, compute
        self.left = source(product.left, product)
        self.right = source(product.right, product)
        # All blocks along x, of which there may be billions.
        self.block, self.thread = tir.variable("block"), tir.variable("thread")
        down, across, batches = tiling.blocks(product)
        self.blocks = _banded(self.block % (down * across), down, across)
        self.image = self.block // (down * across) % batches
        self.split = self.block // (down * across * batches)
        self.batch: Mapping[Any, Expr] = tir.unflatten(self.image, product.batch)
        self.memory = tir.buffer("tiles", tiling.shared, "uint8", "shared.dyn")
        counts = compute.registers(tiling.warp_rows, tiling.warp_columns)
        kinds = (compute.total, compute.fragments, compute.fragments)
        self.registers = [
            tir.buffer(name, count, kind, "local")
            for name, count, kind in zip(("sums", "left", "right"), counts, kinds, strict=True)
        ]
        sizes = (tiling.warp_rows, tiling.warp_columns)
        count = tiling.splits * prod(product.sizes[:3])
        self.parts = tir.buffer("parts", count, compute.total, "global")
        self.warp: Warp = warp_of(self.thread, sizes, tiling.columns)
        self.beside = neighbours(product, compute.total)

    def function(self) -> PrimFunc:
        """The whole kernel."""
        body = tir.sequence([self._zeros(), self._pipeline(), self._results()])
        body = tir.allocated([self.memory, *self.registers], body)
        count = prod(self.tiling.blocks(self.product)) * self.tiling.splits
        threads = ("threadIdx.x", self.thread, self.tiling.threads)
        body = tir.launched([("blockIdx.x", self.block, count), threads], body)
        if self.tiling.splits > 1:
            parts = tir.sequence([body, self._joined()])
            body = tir.allocated([self.parts], parts)
        return self.product.func.with_body(body)

    def _zeros(self) -> Any:
        sums = self.registers[0]
        zero = tirx.const(0, self.compute.total)
        return tir.unrolled(int(sums.shape[0]), lambda i: tirx.BufferStore(sums, zero, [i]), "zero")

    def _pipeline(self) -> Any:
        behind = self.compute.behind(self.tiling.stages)
        # The tiles of products that may be under way lie in stages that nothing is copied to.
        steps, ahead = self._own_steps(), self.tiling.stages - 1 - behind

        def awaited(most: int) -> list[Any]:
            return self.compute.awaited(self.warp, self.registers, most)

        def turn(step: Expr) -> Any:
            copy = tir.when([step + ahead < steps], self._copy(step + ahead))
            return tir.sequence(
                [
                    tir.call(f"wait<{ahead - 1}>"),
                    *self.compute.arrived(),
                    tir.barrier(),
                    copy,
                    tir.call("commit"),
                    self._multiply(step),
                    *awaited(behind),
                ]
            )

        first = [
            statement
            for step in range(ahead)
            for statement in (
                tir.when([tir.number(step) < steps], self._copy(tir.number(step))),
                tir.call("commit"),
            )
        ]
        last = [tir.call("wait<0>"), *awaited(0), tir.barrier()]
        return tir.sequence([*first, tir.loop(steps, turn, "step"), *last])

    def _each(self) -> int:
        """Tiles along the depth, or of those that a block has of them."""
        steps = -(-self.product.sizes[3] // self.left.step)
        return -(-steps // self.tiling.splits)

    def _own_steps(self) -> Expr:
        """The same, where the last of the blocks that divide them may have fewer."""
        each, splits = self._each(), self.tiling.splits
        steps = -(-self.product.sizes[3] // self.left.step)
        return each if each * splits == steps else tirx.min(each, steps - self.split * each)

    def _base(self, step: Expr) -> tuple[Expr, Expr]:
        """Where the stage of a step lies: its left and its right tile."""
        base = step % self.tiling.stages * self.tiling.stage_bytes
        return base, base + self.tiling.rows * ROW_BYTES

    def _copy(self, step: Expr) -> Any:
        sides = (
            (self.left, self.blocks[0], self.tiling.rows),
            (self.right, self.blocks[1], self.tiling.columns),
        )
        first = self.split * self._each() if self.tiling.splits > 1 else tir.number(0)
        return tir.sequence(
            Tile(each, self._place(block * own, own), first + step, self.memory, base).copied()
            for (each, block, own), base in zip(sides, self._base(step), strict=True)
        )

    def _place(self, first: Expr, own: int) -> Place:
        return Place(self.batch, first, own, self.thread, self.tiling.threads)

    def _multiply(self, step: Expr) -> Any:
        left, right = self._base(step)
        sides = (
            Shared(self.memory, left, self.left.by_depth),
            Shared(self.memory, right, self.right.by_depth),
        )
        return self.compute.multiply(self.warp, sides, self.registers)

    def _results(self) -> Any:
        """The sums to shared memory, and from there through the epilogue to the output."""
        width = self.tiling.columns + _PAD

        def keep(row: Expr, column: Expr, at: Expr) -> Any:
            place = ((self.warp.row + row) * width + self.warp.column + column) * _FLOAT
            value = tirx.BufferLoad(self.registers[0], [at])
            name = f"put<{tir.c_type(self.compute.total)}>"
            return tir.call(name, tir.address(self.memory, place), value)

        vector = COUNT if self.beside else 1
        count = self.tiling.rows * self.tiling.columns // vector
        turns = -(-count // self.tiling.threads)

        def turn(i: Expr) -> Any:
            q = i * self.tiling.threads + self.thread
            whole = count % self.tiling.threads == 0
            return tir.when([] if whole else [q < count], self._result(q, width, vector))

        return tir.sequence(
            [self.compute.each(self.warp, keep), tir.barrier(), tir.loop(turns, turn, "out")]
        )

    def _result(self, q: Expr, width: int, vector: int) -> Any:
        """So many sums side by side: through the epilogue, or to the parts of others."""
        tiling = self.tiling
        across = tiling.columns // vector
        row, column = q // across, q % across
        place = tir.address(self.memory, (row * width + column * vector) * _FLOAT)
        m = self.blocks[0] * tiling.rows + row
        n = self.blocks[1] * across + column
        batches, rows, columns, _ = self.product.sizes
        bounds = [m < rows] if rows % tiling.rows else []
        bounds += [n < columns // vector] if columns % tiling.columns else []
        if self.beside is not None:
            return tir.when(bounds, self._vector(self.beside, m, n, place))
        total = tir.got(self.compute.total, place)
        if tiling.splits == 1:
            return tir.when(bounds, self._store(self.batch, m, n, total))
        at = ((self.split * batches + self.image) * rows + m) * columns + n
        return tir.when(bounds, tirx.BufferStore(self.parts, total, [at]))

    def _vector(self, beside: Neighbours, m: Expr, n: Expr, place: Expr) -> Any:
        """Neighbouring sums at once; `n` counts vectors."""
        product = self.product
        batches, rows, columns, _ = product.sizes
        if self.tiling.splits == 1:
            axes = {
                **self.batch,
                **tir.unflatten(m, product.left.own),
                **tir.unflatten(n, beside.axes(product.right.own)),
            }
            store = beside.store(axes)
        else:
            row = (self.split * batches + self.image) * rows + m
            store = beside.kept(self.parts, (row * (columns // COUNT) + n) * COUNT)
        got = tir.call("load4", beside.first, place)
        return tir.allocated([beside.held], tir.sequence([got, store]))

    def _store(self, batch: Mapping[Any, Expr], m: Expr, n: Expr, total: Expr) -> Any:
        """One sum through the epilogue to the output."""
        product = self.product
        axes = {
            **batch,
            **tir.unflatten(m, product.left.own),
            **tir.unflatten(n, product.right.own),
        }
        held = tir.buffer("total", 1, self.compute.total, "local")
        indices, value = product.store(axes, tirx.BufferLoad(held, [tir.number(0)]))
        store = tir.sequence(
            [
                tirx.BufferStore(held, total, [tir.number(0)]),
                tirx.BufferStore(product.output, value, indices),
            ]
        )
        return tir.allocated([held], store)

    def _joined(self) -> Any:
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


def _banded(tile: Expr, down: int, across: int) -> tuple[Expr, Expr]:
    """Row and column of a tile: bands of rows one after the other, column by column within."""
    if down <= _BAND or across == 1:
        return tile % down, tile // down
    first = tile // (_BAND * across) * _BAND
    rows = tir.number(_BAND) if down % _BAND == 0 else tirx.min(tir.number(_BAND), down - first)
    within = tile % (_BAND * across)
    return first + within % rows, within // rows
