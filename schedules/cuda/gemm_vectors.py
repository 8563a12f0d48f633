"""Sums of a block's tile through the epilogue, some neighbours at a time.

What an epilogue reads, such as a residual, takes a thousand cycles to arrive, and a thread that
waits for each before it asks for the next leaves memory idle: the reads of some vectors are under
way together, in registers that held sums before.  What all rows share is read once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.neighbours import Neighbours, Read

# Registers for what is read ahead, beside sums: 49 KB of a multiprocessor with 384 threads, which
# is more than its share of what a memory of 5 TB/s brings in a microsecond.
_REGISTERS = 32
Expr = Any


@dataclass(frozen=True)
class Walk:
    """The vectors of a tile, or of a block's share of it from the vector `first` on, by threads.

    `count` of them lie `across` in a row.
    """

    count: int
    across: int
    first: Expr
    thread: Expr
    threads: int

    @property
    def turns(self) -> int:
        """Vectors of a thread."""
        return -(-self.count // self.threads)

    @property
    def in_a_column(self) -> bool:
        """Whether all vectors of a thread are of the same columns."""
        return self.threads % self.across == 0 and self.count % self.across == 0

    def place(self, turn: Expr) -> tuple[Expr, Expr]:
        """Row and column of a thread's vector."""
        if self.in_a_column:
            down, row = self.threads // self.across, self.first // self.across
            return row + turn * down + self.thread // self.across, self.thread % self.across
        q = self.first + turn * self.threads + self.thread
        return q // self.across, q % self.across

    def inside(self, turn: Expr) -> list[Expr]:
        """What must hold lest there is no such vector."""
        return [turn * self.threads + self.thread < self.count] if self.count % self.threads else []


@dataclass(frozen=True)
class Vectors:
    """Stores vectors, each of a row and a column of vectors of the tile.

    `axes` are the product's there, of which `rows` tell rows apart; `bounds` is what must hold of a
    row, if it matters, and of a column; `store` are the statements that store a vector.
    """

    beside: Neighbours
    walk: Walk
    rows: tuple[Any, ...]
    axes: Callable[[Expr, Expr], Mapping[Any, Expr]]
    bounds: Callable[[Expr | None, Expr], list[Expr]]
    store: Callable[[Neighbours, Expr, Expr], list[Any]]
    reads: bool  # whether an epilogue is behind the sums

    @cached_property
    def _once(self) -> tuple[Neighbours, list[Read]]:
        """What is read before all turns."""
        if self.reads and self.walk.in_a_column and self.walk.turns > 1:
            return self.beside.ahead(self.rows, "shared")
        return self.beside, []

    @cached_property
    def _turns(self) -> list[tuple[Neighbours, list[Read]]]:
        """What is read for each of the turns that read together."""
        beside, _ = self._once
        if not self.reads:
            return [(beside, [])]
        taken = sum(read.registers for read in beside.ahead(None, "read")[1])
        most = max(1, _REGISTERS // taken) if taken else 1
        turns = self.walk.turns
        count = max(n for n in range(1, turns + 1) if n <= most and turns % n == 0)
        return [beside.ahead(None, f"read_{turn}") for turn in range(count)]

    @property
    def arrays(self) -> list[Any]:
        """Where sums lie, and what is read."""
        reads = [read.array for _, reads in (self._once, *self._turns) for read in reads]
        return [self.beside.held, *reads]

    def begun(self) -> list[Any]:
        """The first reads, which may begin before sums are there."""
        beside, reads = self._once
        _, column = self.walk.place(tir.number(0))
        axes = self.axes(tir.number(0), column)
        copies = [beside.copied(read, axes) for read in reads]
        once = [tir.when(self.bounds(None, column), tir.sequence(copies))] if copies else []
        first = (self._read(tir.number(turn), *each) for turn, each in enumerate(self._turns))
        return [*once, *(read for reads in first for read in reads)]

    def stored(self) -> Any:
        """All the rest: behind each vector, what is read of the one that takes its place."""
        count = len(self._turns)
        groups = self.walk.turns // count

        def turn(group: Expr, number: int) -> list[Any]:
            beside, reads = self._turns[number]
            this, later = group * count + number, (group + 1) * count + number
            statements = self.store(beside, *self.walk.place(this))
            read = self._read(later, beside, reads) if groups > 1 else []
            following = [tir.when([group + 1 < groups], each) for each in read]
            return [self._where(this, statements), *following]

        def body(group: Expr) -> Any:
            return tir.sequence(each for number in range(count) for each in turn(group, number))

        return tir.loop(groups, body, "out")

    def _read(self, turn: Expr, beside: Neighbours, reads: list[Read]) -> list[Any]:
        axes = self.axes(*self.walk.place(turn))
        copies = [beside.copied(read, axes) for read in reads]
        return [self._where(turn, copies)] if copies else []

    def _where(self, turn: Expr, statements: list[Any]) -> Any:
        """Statements of a turn, where there is one."""
        bounds = self.walk.inside(turn) + self.bounds(*self.walk.place(turn))
        return tir.when(bounds, tir.sequence(statements))
