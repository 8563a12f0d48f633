"""How warps multiply tiles of float32 on CUDA cores, with few instructions beside multiply-adds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.cuda.gpu import WARP
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.compute import Compute, EachSum, Shared, Sides, Warp
from hybridc.schedules.cuda.operands import CHUNKS, panelled, swizzled

Expr = Any
_WIDE = 4  # neighbours that one load brings, along the depth or along the own axis
# A warp's tile is as high from which on its lanes have a row each of eight, not of four.
_HIGH = 64


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

    def begun(self, registers: Any, side: Shared) -> Any:
        """What brings the first step."""
        zero = tir.number(0)
        if self.by_depth:
            return self.loaded(registers, side, zero, 0)
        return tir.unrolled(self.count, lambda i: self.chunk(registers, side, i, zero))


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
    left_by_depth: bool = False
    right_by_depth: bool = False

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
        counts = (side.count * (2 if side.by_depth else _WIDE) for side in (left, right))
        return (left.count * right.count, *counts)

    def instructions(self, warp_rows: int, warp_columns: int) -> int:
        """Loads of operands, and multiply-adds, in each of eight chunks."""
        left, right = self._sides(warp_rows, warp_columns)
        return CHUNKS * (left.count + right.count + _WIDE * left.count * right.count)

    def reads(self, warp_rows: int, warp_columns: int) -> float:
        """Each load of a warp takes two accesses, as half of its lanes share what they read."""
        left, right = self._sides(warp_rows, warp_columns)
        return 2 * CHUNKS * (left.count + right.count) / (warp_rows * warp_columns)

    def multiply(self, warp: Warp, sides: tuple[Shared, Shared], registers: list[Any]) -> Any:
        """Chunk by chunk of four steps along the depth; the last has no next one to read."""
        parts = self._sides(warp.rows, warp.columns, warp)
        held = list(zip(parts, registers[1:], sides, strict=True))

        def chunk(number: Expr, last: bool) -> Any:
            return tir.sequence(
                each for k in range(_WIDE) for each in _step(held, registers[0], number, k, last)
            )

        begun = [part.begun(to, side) for part, to, side in held]
        walk = tir.rolled(CHUNKS - 1, lambda number: chunk(number, last=False))
        return tir.sequence([*begun, walk, chunk(tir.number(CHUNKS - 1), last=True)])

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


def _step(held: list[Any], sums: Any, chunk: Expr, k: int, last: bool) -> list[Any]:
    """One step of the depth: what it multiplies, and what the next one needs."""
    (left, lefts, left_side), (right, rights, right_side) = held
    more, ends = not last or k < _WIDE - 1, k == _WIDE - 1 and not last
    made: list[Any] = []
    for part, to, side in held:
        if part.by_depth and more:
            made.append(part.loaded(to, side, chunk + (k + 1) // _WIDE, (k + 1) % _WIDE))

    def row(i: Expr) -> Any:
        product = tir.call(
            f"multiply<{right.count}, {right.stride}>",
            tir.address(sums, i * right.count),
            tir.address(lefts, left.held(i, k)),
            tir.address(rights, right.held(tir.number(0), k)),
        )
        # Its registers are free behind this, and are used again after all other rows.
        ahead = [left.chunk(lefts, left_side, i, chunk + 1)] if ends and not left.by_depth else []
        return tir.sequence([product, *ahead])

    made.append(tir.unrolled(left.count, row))
    if ends and not right.by_depth:
        ahead: Callable[[Expr], Any] = lambda j: right.chunk(rights, right_side, j, chunk + 1)
        made.append(tir.unrolled(right.count, ahead))
    return made
