"""Products on a GPU, written out: tiles in shared memory, copies ahead of the multiplications.

A block computes a tile of the result.  While it multiplies one pair of tiles along the depth, the
next ones are copied asynchronously into other stages of shared memory; one barrier a step tells
that a stage has arrived and that the one before it is free, or the one before that where products
are asynchronous too.  The sums go through shared memory to the output, so that neighbouring threads
write neighbouring elements whatever the epilogue is.  Where tiles are too few for the GPU, several
blocks divide the depth of one (split-K), and add up what they have in a fixed order.
"""

from math import prod
from typing import Any

from tvm import tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.cuda import packed_tiles, tir
from hybridc.schedules.cuda.compute import Compute, Shared, Warp, warp_of
from hybridc.schedules.cuda.gemm_results import Part, Results
from hybridc.schedules.cuda.operands import ROW_BYTES, Place, Tile, source
from hybridc.schedules.cuda.product_kernel import Product
from hybridc.schedules.cuda.tiling import Tiling

# Rows of tiles that are computed together, column by column: as many blocks as run at a time on 100
# to 150 multiprocessors have about as many rows as columns to read then.
_BAND = 16
Expr = Any


def kernel(product: Product, tiling: Tiling, compute: Compute) -> PrimFunc:
    """The kernel that computes a product so."""
    return _Writer(product, tiling, compute).function()


class _Writer:
    """Writes one kernel."""

    def __init__(self, product: Product, tiling: Tiling, compute: Compute) -> None:
        self.product, self.tiling, self.compute = product, tiling, compute
        self.left = source(product.left, product, compute.by_depth)
        self.right = source(product.right, product, compute.by_depth)
        # All blocks along x, of which there may be billions.
        self.block, self.thread = tir.variable("block"), tir.variable("thread")
        down, across, batches = tiling.blocks(product)
        together, splits = tiling.together(product), tiling.splits
        if together > 1:
            split, tile = self.block % splits, self.block // splits
        else:
            split, tile = self.block // (down * across * batches), self.block
        image = tile // (down * across) % batches
        self.part = Part(*_banded(tile % (down * across), down, across), image, split, self.thread)
        self.batch = tir.unflatten(image, product.batch)
        self.memory = tir.buffer("tiles", tiling.shared, "uint8", "shared.dyn")
        counts = compute.registers(tiling.warp_rows, tiling.warp_columns)
        kinds = (compute.total, compute.fragments, compute.fragments)
        self.registers = [
            tir.buffer(name, count, kind, "local")
            for name, count, kind in zip(("sums", "left", "right"), counts, kinds, strict=True)
        ]
        kept = sum(
            packed_tiles.registers(side, own, tiling.threads)
            for side, own in ((self.left, tiling.rows), (self.right, tiling.columns))
        )
        self.held = tir.buffer("packed", kept, "int32", "local") if kept else None
        sizes = (tiling.warp_rows, tiling.warp_columns)
        self.warp: Warp = warp_of(self.thread, sizes, tiling.columns)
        self.results = Results(product, tiling, compute.total, self.memory, self.part)

    def function(self) -> PrimFunc:
        """The whole kernel."""
        body = tir.sequence(
            [*self.results.ahead(), self._zeros(), self._pipeline(), self._stored()]
        )
        held = [] if self.held is None else [self.held]
        body = tir.allocated([self.memory, *self.registers, *held], body)
        count = prod(self.tiling.blocks(self.product)) * self.tiling.splits
        threads = ("threadIdx.x", self.thread, self.tiling.threads)
        body = tir.launched([("blockIdx.x", self.block, count), threads], body)
        body = self.results.joined(body)
        return self.product.func.with_body(body)

    def _stored(self) -> Any:
        return self.results.stored(
            lambda put: self.compute.each(
                self.warp,
                lambda row, column, at: put(
                    self.warp.row + row,
                    self.warp.column + column,
                    tirx.BufferLoad(self.registers[0], [at]),
                ),
            )
        )

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

        def only(step: Expr, statements: list[Any]) -> list[Any]:
            """Statements of a step, where there is such a step."""
            return [tir.when([step < steps], tir.sequence(statements))] if statements else []

        def turn(step: Expr) -> Any:
            return tir.sequence(
                [
                    tir.call(f"wait<{ahead - 1}>"),
                    *self.compute.arrived(),
                    tir.barrier(),
                    *only(step + ahead, self._copies(step + ahead)),
                    tir.call("commit"),
                    self._multiply(step),
                    *only(step + ahead, self._unpacked(step + ahead)),
                    *only(step + ahead + 1, self._reads(step + ahead + 1)),
                    *awaited(behind),
                ]
            )

        def begun(step: Expr) -> list[Any]:
            whole = [*self._copies(step), *self._reads(step), *self._unpacked(step)]
            return [*only(step, whole), tir.call("commit")]

        first = [each for step in range(ahead) for each in begun(tir.number(step))]
        gpu = self.product.target.device
        first += self.compute.before(self.registers, self.tiling, gpu)
        first += only(tir.number(ahead), self._reads(tir.number(ahead)))
        last = [*awaited(0), *self.compute.after(self.warp, self.registers)]
        last = [tir.call("wait<0>"), *last, tir.barrier()]
        walk = tir.rolled(steps, turn) if self._gathers else tir.loop(steps, turn, "step")
        return tir.sequence([*first, walk, *last])

    @property
    def _gathers(self) -> bool:
        """Whether operands that a thread has in registers are gathered, as a convolution's are.

        With a few steps written out, their addresses took 255 registers in place of 104 (sm_80).
        """
        conditions = (self.left.condition, self.right.condition)
        return int(self.registers[1].shape[0]) > 1 and any(each is not None for each in conditions)

    def _each(self) -> int:
        """Tiles along the depth, or of those that a block has of them."""
        steps = -(-self.product.sizes[3] // self.left.step)
        return -(-steps // self.tiling.splits)

    def _own_steps(self) -> Expr:
        """The same, where the last of the blocks that divide them may have fewer."""
        each, splits = self._each(), self.tiling.splits
        steps = -(-self.product.sizes[3] // self.left.step)
        return each if each * splits == steps else tirx.min(each, steps - self.part.split * each)

    def _base(self, step: Expr) -> tuple[Expr, Expr]:
        """Where the stage of a step lies: its left and its right tile."""
        base = step % self.tiling.stages * self.tiling.stage_bytes
        return base, base + self.tiling.rows * ROW_BYTES

    def _tiles(self, step: Expr) -> list[Tile]:
        """Those of a step."""
        sides = (
            (self.left, self.part.row, self.tiling.rows),
            (self.right, self.part.column, self.tiling.columns),
        )
        first = self.part.split * self._each() if self.tiling.splits > 1 else tir.number(0)
        return [
            Tile(each, self._place(block * own, own), first + step, self.memory, base)
            for (each, block, own), base in zip(sides, self._base(step), strict=True)
        ]

    def _copies(self, step: Expr) -> list[Any]:
        """Begin to copy the tiles of a step, but for those that are packed."""
        return [tile.copied() for tile in self._tiles(step) if tile.source.weights is None]

    def _reads(self, step: Expr) -> list[Any]:
        """Begin to read the tiles of a step that are packed, to registers."""
        return [packed_tiles.read(tile, self.held) for tile in self._packed(step)]

    def _unpacked(self, step: Expr) -> list[Any]:
        """What was read so to shared memory."""
        return [packed_tiles.unpacked(tile, self.held) for tile in self._packed(step)]

    def _packed(self, step: Expr) -> list[Tile]:
        return [tile for tile in self._tiles(step) if tile.source.weights is not None]

    def _place(self, first: Expr, own: int) -> Place:
        return Place(self.batch, first, own, self.thread, self.tiling.threads)

    def _multiply(self, step: Expr) -> Any:
        left, right = self._base(step)
        sides = (
            Shared(self.memory, left, self.left.by_depth),
            Shared(self.memory, right, self.right.by_depth),
        )
        return self.compute.multiply(self.warp, sides, self.registers)


def _banded(tile: Expr, down: int, across: int) -> tuple[Expr, Expr]:
    """Row and column of a tile: bands of rows one after the other, column by column within."""
    if down <= _BAND or across == 1:
        return tile % down, tile // down
    first = tile // (_BAND * across) * _BAND
    rows = tir.number(_BAND) if down % _BAND == 0 else tirx.min(tir.number(_BAND), down - first)
    within = tile % (_BAND * across)
    return first + within % rows, within // rows
