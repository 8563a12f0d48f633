"""How warps multiply tiles of float32 on CUDA cores, with few instructions beside multiply-adds."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from hybridc.compiler.cuda.gpu import WARP, Gpu
from hybridc.compiler.cuda.resources import occupancy
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.compute import SCHEDULERS, Compute, EachSum, Shared, Sides, Warp
from hybridc.schedules.cuda.operands import CHUNKS, panelled, swizzled
from hybridc.schedules.cuda.tiling import Tiling

Expr = Any
_WIDE = 4  # neighbours that one load brings, along the depth or along the own axis
# A warp's tile is as high from which on its lanes have a row each of eight, not of four.
_HIGH = 64
# Registers of a thread for addresses and counters beside operands: ptxas would take a few more
# without a word, and leave room for half of the blocks.
_FEW_OTHERS = 16
_CHUNK_INSTRUCTIONS = 6  # of addresses and the loop, as ptxas 13.0 writes them
_AT_ONCE = 2  # chunks that are written out


@dataclass(frozen=True)
class _Side:
    """An operand's part of a thread: its elements are every so many, or fours of neighbours.

    By depth, two steps' elements are in registers at once; else the four steps of a chunk.
    """

    lanes: int
    lane: Expr
    count: int
    first: Expr
    by_depth: bool

    def own(self, i: Expr) -> Expr:
        """Which row or column of the warp's tile is the thread's i-th."""
        if self.by_depth:
            return i // _WIDE * (_WIDE * self.lanes) + self.lane * _WIDE + i % _WIDE
        return i * self.lanes + self.lane

    def held(self, i: Expr, k: int) -> Expr:
        """Which register holds its element of step k of a chunk."""
        return k % 2 * self.count + i if self.by_depth else i * _WIDE + k

    @property
    def stride(self) -> int:
        """Registers from an element to the next."""
        return 1 if self.by_depth else _WIDE

    def loaded(self, registers: Any, side: Shared, chunk: Expr, k: int) -> Any:
        """What brings step k, by depth."""
        row = chunk * _WIDE + k

        def load(i: Expr) -> Any:
            own = self.first // _WIDE + i * self.lanes + self.lane
            return _load(registers, self.held(i * _WIDE, k), side, panelled(row, own))

        return tir.unrolled(self.count // _WIDE, load)

    def chunk(self, registers: Any, side: Shared, i: Expr, chunk: Expr) -> Any:
        """What brings a row's or column's chunk, where it is not by depth."""
        place = swizzled(self.first + self.own(i), chunk)
        return _load(registers, self.held(i, 0), side, place)

    def chunks(self, registers: Any, side: Shared, chunk: Expr) -> Any:
        """The same for all of them."""
        return tir.unrolled(self.count, lambda i: self.chunk(registers, side, i, chunk))

    def kept(self, registers: Any) -> Any:
        """Copies the last step of a chunk, to registers behind those that the next one takes."""

        def keep(i: Expr) -> Any:
            last = tirx.BufferLoad(registers, [self.held(i, _WIDE - 1)])
            return tirx.BufferStore(registers, last, [self.count * _WIDE + i])

        return tir.unrolled(self.count, keep)


def _zeros(registers: Any) -> Any:
    zero = tirx.const(0, "float32")
    return tir.unrolled(int(registers.shape[0]), lambda i: tirx.BufferStore(registers, zero, [i]))


def _load(registers: Any, at: Expr, side: Shared, place: Expr) -> Any:
    to = tir.address(registers, at)
    return tir.call("load4", to, tir.address(side.memory, side.base + place))


@dataclass(frozen=True)
class MultiplyAdds(Compute):
    """Each lane multiplies some rows by some columns, of four lanes by eight or eight by four.

    What the next step of the depth needs is read while this one is multiplied.  Of two lanes side
    by side, or of every other two, each load reads the same: so the sixteen lanes of half a warp
    read 128 bytes at most, which takes one access of the shared memory.
    """

    rows: ClassVar[int] = 16
    columns: ClassVar[int] = 32
    fragments: ClassVar[str] = "float32"
    by_depth: ClassVar[tuple[int, ...]] = (4,)
    most_waves: ClassVar[int] = 3
    left_by_depth: bool = False
    right_by_depth: bool = False
    plain: bool = False  # whether all is copied in whole pieces, without conditions

    def sides(self) -> Sides:
        """A lane has four rows and columns or more."""
        return Sides((32, 64, 128, 256), (16, 32, 64), (32, 64))

    def _sides(self, rows: int, columns: int, warp: Warp | None = None) -> tuple[_Side, _Side]:
        """The parts of a thread."""
        few, many = 4, WARP // 4
        down, across = (many, few) if rows >= _HIGH else (few, many)
        zero = tir.number(0)
        lane, row, column = (warp.lane, warp.row, warp.column) if warp else (zero,) * 3
        outer, inner = lane // 16 * 2 + lane % 2, lane // 2 % 8
        left, right = (inner, outer) if down == many else (outer, inner)
        return (
            _Side(down, left, rows // down, row, self.left_by_depth),
            _Side(across, right, columns // across, column, self.right_by_depth),
        )

    def registers(self, warp_rows: int, warp_columns: int) -> tuple[int, int, int]:
        """A sum for each pair; two steps of what lies by depth, four of the rest."""
        left, right = self._sides(warp_rows, warp_columns)
        lefts = left.count * (2 if left.by_depth else _WIDE)
        rights = right.count * (2 if right.by_depth else _WIDE + 1)
        return left.count * right.count, lefts, rights

    def others(self) -> int:
        """Few where addresses are."""
        return _FEW_OTHERS if self.plain else super().others()

    def instructions(self, warp_rows: int, warp_columns: int) -> int:
        """Loads of operands, multiply-adds and addresses, in each of eight chunks."""
        left, right = self._sides(warp_rows, warp_columns)
        each = left.count + right.count + _WIDE * left.count * right.count
        return CHUNKS * (each + _CHUNK_INSTRUCTIONS)

    def reads(self, warp_rows: int, warp_columns: int) -> float:
        """Each load of a warp takes two accesses, as half of its lanes share what they read."""
        left, right = self._sides(warp_rows, warp_columns)
        return 2 * CHUNKS * (left.count + right.count) / (warp_rows * warp_columns)

    def idle(self, warps: int) -> float:
        """As slow as the scheduler with most warps, as each has CUDA cores of its own."""
        return -(-warps // SCHEDULERS) * SCHEDULERS / warps

    def before(self, registers: list[Any], tiling: Tiling, gpu: Gpu) -> list[Any]:
        """Operands of zero, as the first step multiplies what there was before it."""
        taken = sum(int(each.shape[0]) for each in registers) + self.others()
        # Shared memory counts too: held to fewer registers than that leaves, some are spilled.
        used = occupancy(tiling.threads, taken, tiling.shared, gpu) if self.plain else 0.0
        blocks = round(used * gpu.threads_per_sm / tiling.threads)
        room = [tir.call(f"resident<{blocks}>")] if blocks > 1 else []
        return [*room, *map(_zeros, registers[1:])]

    def after(self, warp: Warp, registers: list[Any]) -> list[Any]:
        """The products of the last step, which has no next one."""
        left, right = self._sides(warp.rows, warp.columns, warp)
        last = right.held(tir.number(0), _WIDE - 1), right.stride
        return [tir.unrolled(left.count, lambda i: _row(left, registers, i, _WIDE - 1, last))]

    def multiply(self, warp: Warp, sides: tuple[Shared, Shared], registers: list[Any]) -> Any:
        """Chunk by chunk of four steps along the depth, each step behind the reads of the next."""
        parts = self._sides(warp.rows, warp.columns, warp)

        def chunk(number: Expr) -> Any:
            steps = (_step(parts, sides, registers, number, k) for k in range(_WIDE))
            return tir.sequence(each for step in steps for each in step)

        def chunks(turn: Expr) -> Any:
            return tir.sequence(chunk(turn * _AT_ONCE + each) for each in range(_AT_ONCE))

        return tir.rolled(CHUNKS // _AT_ONCE, chunks)

    def each(self, warp: Warp, store: EachSum) -> Any:
        """Row by row of the thread's."""
        left, right = self._sides(warp.rows, warp.columns, warp)
        across = right.count
        return tir.unrolled(
            left.count,
            lambda i: tir.unrolled(
                across, lambda j: store(left.own(i), right.own(j), i * across + j)
            ),
        )


def _step(
    parts: tuple[_Side, _Side],
    sides: tuple[Shared, Shared],
    registers: list[Any],
    chunk: Expr,
    k: int,
) -> list[Any]:
    """Reads step k of a chunk, and multiplies the step before it."""
    (left, right), (_, lefts, rights) = parts, registers
    made: list[Any] = []
    for part, to, side in zip(parts, registers[1:], sides, strict=True):
        if part.by_depth:
            made.append(part.loaded(to, side, chunk, k))
    before = (k - 1) % _WIDE
    others = right.held(tir.number(0), before), right.stride
    if k == 0 and not right.by_depth:
        made += [right.kept(rights), right.chunks(rights, sides[1], chunk)]
        others = tir.number(right.count * _WIDE), 1

    def row(i: Expr) -> Any:
        product = _row(left, registers, i, before, others)
        # Its registers are free behind this, and are used again after all other rows.
        reads = [left.chunk(lefts, sides[0], i, chunk)] if k == 0 and not left.by_depth else []
        return tir.sequence([product, *reads])

    return [*made, tir.unrolled(left.count, row)]


def _row(left: _Side, registers: list[Any], i: Expr, k: int, others: tuple[Expr, int]) -> Any:
    """The products of a row in one step; `others` are the first of the columns, and the stride."""
    sums, lefts, rights = registers
    first, stride = others
    count = int(sums.shape[0]) // left.count
    return tir.call(
        f"multiply<{count}, {stride}>",
        tir.address(sums, i * count),
        tir.address(lefts, left.held(i, k)),
        tir.address(rights, first),
    )
