"""How a block multiplies the tiles that lie in shared memory: on tensor cores, or on CUDA cores."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.cuda.gpu import WARP, Gpu
from hybridc.compiler.interfaces import Point
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.operands import CHUNKS, swizzled, swizzled_by_depth
from hybridc.schedules.cuda.tiling import Tiling

Expr = Any
_SIDES = (32, 64, 128, 256)
_WARP_SIDES = (16, 32, 64)
SCHEDULERS = 4  # of a multiprocessor, each of which issues for warps of its own
# Columns of a lane on CUDA cores, every eighth, whose chunks are in registers at once.
_BESIDE = 8
# Is told the row, the column and the index of an accumulator, within a warp's tile.
EachSum = Callable[[Expr, Expr, Expr], Any]


@dataclass(frozen=True)
class Warp:
    """A warp's part of a block's tile: its size, where it begins, and the lane."""

    rows: int
    columns: int
    row: Expr
    column: Expr
    lane: Expr


@dataclass(frozen=True)
class Shared:
    """A tile in shared memory: where it begins, and whether it has a row for each depth step."""

    memory: Any
    base: Expr
    by_depth: bool


@dataclass(frozen=True)
class Sides:
    """Lengths that the sides of tiles may have: of a block's, and of a warp's."""

    block: tuple[int, ...]
    warp_rows: tuple[int, ...]
    warp_columns: tuple[int, ...]


@dataclass(frozen=True)
class Compute(ABC):
    """Multiplies two tiles of 128 bytes of depth; keeps sums in registers."""

    rows: ClassVar[int]  # a warp's tile has multiples of these
    columns: ClassVar[int]
    fragments: ClassVar[str]  # the type of registers that hold operands
    stages: ClassVar[tuple[int, ...]] = (2, 3, 4)  # of pairs of tiles in shared memory
    by_depth: ClassVar[tuple[int, ...]] = (2,)  # bytes of elements whose tiles may be by depth
    # Blocks of a multiprocessor beyond which dividing the depth brings no more of them to work.
    most_waves: ClassVar[int] = 2
    total: str = "float32"  # the type of sums

    @abstractmethod
    def registers(self, warp_rows: int, warp_columns: int) -> tuple[int, int, int]:
        """Registers of a thread for sums, left operands and right operands."""

    @abstractmethod
    def instructions(self, warp_rows: int, warp_columns: int) -> int:
        """What a warp issues to multiply two tiles."""

    def others(self) -> int:
        """Registers of a thread beside sums and operands: addresses, counters, what is copied."""
        return 40

    def reads(self, warp_rows: int, warp_columns: int) -> float:
        """Rows of 128 bytes that are read of shared memory for each sum of a warp."""
        return 1 / warp_rows + 1 / warp_columns

    def idle(self, warps: int) -> float:
        """By how much so many warps of a multiprocessor are slower than what it multiplies at."""
        return max(1.0, SCHEDULERS / warps)

    def sides(self) -> Sides:
        """What sides a block's tile and a warp's may have."""
        warp = tuple(side for side in _WARP_SIDES if side % self.columns == 0)
        return Sides(_SIDES, warp, warp)

    def shaped(self, point: Point) -> Point:
        """A point with tiles that this multiplies."""
        return point

    def arrived(self) -> list[Any]:
        """What a thread does between its copies and the barrier behind which they are read."""
        return []

    def behind(self, stages: int) -> int:
        """How many products may still be under way when the next step begins."""
        return 0

    def awaited(self, warp: Warp, registers: list[Any], behind: int) -> list[Any]:
        """What waits until only so many products are under way."""
        return []

    def before(self, registers: list[Any], tiling: Tiling, gpu: Gpu) -> list[Any]:
        """What comes before the first product."""
        return []

    def after(self, warp: Warp, registers: list[Any]) -> list[Any]:
        """What comes behind the last product."""
        return []

    @abstractmethod
    def multiply(self, warp: Warp, sides: tuple[Shared, Shared], registers: list[Any]) -> Any:
        """Begin to add the product of two tiles to the sums; `registers` are buffers as above."""

    @abstractmethod
    def each(self, warp: Warp, store: EachSum) -> Any:
        """Do something with every sum of this thread."""


@dataclass(frozen=True)
class TensorCores(Compute):
    """`mma.sync` of 16 rows by 8 columns and 32 bytes of depth; operands from `ldmatrix`.

    `dtype` names the function of the prelude that multiplies: a type, or those of both sides.
    """

    dtype: str = "float16"
    rows: ClassVar[int] = 16
    columns: ClassVar[int] = 16  # what one `ldmatrix` of the right side brings
    fragments: ClassVar[str] = "uint32"

    def registers(self, warp_rows: int, warp_columns: int) -> tuple[int, int, int]:
        """Four sums, four registers on the left and two on the right of each `mma`."""
        down, right = warp_rows // 16, warp_columns // 8
        return 4 * down * right, 4 * down, 2 * right

    def instructions(self, warp_rows: int, warp_columns: int) -> int:
        """Loads of operands, and products, in each of four steps."""
        down, across = warp_rows // 16, warp_columns // 8
        return CHUNKS // 2 * (down + across // 2 + down * across)

    def multiply(self, warp: Warp, sides: tuple[Shared, Shared], registers: list[Any]) -> Any:
        """Step by step along the depth, 32 bytes at a time."""
        _, left, right = registers
        down, across = warp.rows // 16, warp.columns // 8

        def step(s: Expr) -> Any:
            load_left = tir.unrolled(
                down, lambda i: load(left, 4 * i, left_row(warp, sides[0], i, s), sides[0])
            )
            load_right = tir.unrolled(
                across // 2,
                lambda j: load(right, 4 * j, right_row(warp, sides[1], j, s), sides[1]),
            )
            products = tir.unrolled(
                down,
                lambda i: tir.unrolled(across, lambda j: self._product(registers, i, j, across)),
            )
            return tir.sequence([load_left, load_right, products])

        return tir.unrolled(CHUNKS // 2, step, "s")

    def _product(self, registers: list[Any], i: Expr, j: Expr, across: int) -> Any:
        sums, left, right = registers
        return tir.call(
            f"mma_{self.dtype}",
            tir.address(sums, (i * across + j) * 4),
            tir.address(left, i * 4),
            tir.address(right, j * 2),
        )

    def each(self, warp: Warp, store: EachSum) -> Any:
        """Sum i is of row lane / 4, 8 further for i >= 2, and column 2 (lane % 4) + i % 2."""
        across = warp.columns // 8

        def one(i: Expr, j: Expr, e: Expr) -> Any:
            row = i * 16 + warp.lane // 4 + e // 2 * 8
            column = j * 8 + warp.lane % 4 * 2 + e % 2
            return store(row, column, (i * across + j) * 4 + e)

        return tir.unrolled(
            warp.rows // 16,
            lambda i: tir.unrolled(across, lambda j: tir.unrolled(4, lambda e: one(i, j, e))),
        )


def load(registers: Any, at: Expr, place: Expr, side: Shared) -> Any:
    """Four 8x8 matrices; of operands by depth they are transposed on the way."""
    name = "ldmatrix_trans" if side.by_depth else "ldmatrix"
    return tir.call(name, tir.address(registers, at), tir.address(side.memory, side.base + place))


def left_row(warp: Warp, side: Shared, i: Expr, step: Expr) -> Expr:
    """Which row a lane names, in the order in which `mma` takes the left side's matrices."""
    lane = warp.lane
    first = warp.row + i * 16
    if not side.by_depth:
        return swizzled(first + lane % 16, step * 2 + lane // 16)
    row = step * 16 + lane % 8 + lane // 16 * 8
    chunk = first // 8 + lane // 8 % 2
    return swizzled_by_depth(row, chunk)


def right_row(warp: Warp, side: Shared, j: Expr, step: Expr) -> Expr:
    """The same for the right side: two matrices along the depth, of eight columns each, twice."""
    lane = warp.lane
    first = warp.column + j * 16
    if not side.by_depth:
        return swizzled(first + lane % 8 + lane // 16 * 8, step * 2 + lane // 8 % 2)
    row = step * 16 + lane % 8 + lane // 8 % 2 * 8
    chunk = first // 8 + lane // 16
    return swizzled_by_depth(row, chunk)


@dataclass(frozen=True)
class CudaCores(Compute):
    """Multiply-adds of float32: a lane has every fourth row and every eighth column.

    Eight lanes side by side read eight neighbouring rows' chunks, which lie in all banks.
    """

    rows: ClassVar[int] = 4
    columns: ClassVar[int] = 8
    fragments: ClassVar[str] = "float32"

    def registers(self, warp_rows: int, warp_columns: int) -> tuple[int, int, int]:
        """A sum for each pair, and a chunk of four for each row, and for columns side by side."""
        down, right = warp_rows // 4, warp_columns // 8
        return down * right, 4 * down, 4 * min(right, _BESIDE)

    def instructions(self, warp_rows: int, warp_columns: int) -> int:
        """Loads of operands, and four multiply-adds for each pair, in each of eight steps."""
        down, across = warp_rows // 4, warp_columns // 8
        return CHUNKS * (down + across + 4 * down * across)

    def multiply(self, warp: Warp, sides: tuple[Shared, Shared], registers: list[Any]) -> Any:
        """Chunk by chunk of four along the depth."""
        sums, left, right = registers
        down, across = warp.rows // 4, warp.columns // 8
        row, column = warp.row + warp.lane // 8, warp.column + warp.lane % 8

        def load(to: Any, at: Expr, side: Shared, own: Expr, chunk: Expr) -> Any:
            place = side.base + swizzled(own, chunk)
            return tir.call("load4", tir.address(to, at), tir.address(side.memory, place))

        def product(i: Expr, j: Expr, first: int) -> Any:
            return tir.call(
                "dot4",
                tir.address(sums, i * across + first + j),
                tir.address(left, i * 4),
                tir.address(right, j * 4),
            )

        def beside(chunk: Expr, first: int) -> list[Any]:
            """The products with some columns."""
            count, own = min(_BESIDE, across - first), column + first * 8
            loads = tir.unrolled(count, lambda j: load(right, j * 4, sides[1], own + j * 8, chunk))
            products = tir.unrolled(
                down, lambda i: tir.unrolled(count, lambda j: product(i, j, first))
            )
            return [loads, products]

        def step(chunk: Expr) -> Any:
            rows = tir.unrolled(down, lambda i: load(left, i * 4, sides[0], row + i * 4, chunk))
            columns = (beside(chunk, first) for first in range(0, across, _BESIDE))
            return tir.sequence([rows, *(each for some in columns for each in some)])

        return tir.loop(CHUNKS, step, "s")

    def each(self, warp: Warp, store: EachSum) -> Any:
        """Every fourth row, every eighth column."""
        across = warp.columns // 8
        return tir.unrolled(
            warp.rows // 4,
            lambda i: tir.unrolled(
                across,
                lambda j: store(i * 4 + warp.lane // 8, j * 8 + warp.lane % 8, i * across + j),
            ),
        )


def warp_of(thread: Expr, sizes: tuple[int, int], block_columns: int) -> Warp:
    """The warp of a thread, with warps side by side along the columns first."""
    rows, columns = sizes
    number, across = thread // WARP, block_columns // columns
    row, column = number // across * rows, number % across * columns
    return Warp(rows, columns, row, column, thread % WARP)
