"""Rows that are computed together, and where one of them lies."""

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from hybridc.schedules.loops import statements

Expr = Any  # tvm.ir.Expr


@dataclass(frozen=True)
class Groups:
    """A loop over a range of an axis, `rows` at a time; the last ones overlap those before."""

    axis: Any
    start: int
    stop: int
    rows: int

    @property
    def count(self) -> int:
        """How often the loop runs."""
        return -(-(self.stop - self.start) // self.rows)

    def first(self, counter: Expr) -> Expr:
        """The first value of a turn."""
        if (self.stop - self.start) % self.rows == 0:
            return counter * self.rows + self.start
        last = statements.long(self.stop - self.rows)
        return tirx.min(counter * self.rows + self.start, last)


@dataclass(frozen=True)
class Row:
    """A row of columns within a buffer."""

    buffer: Any
    base: Expr

    def __getitem__(self, at: Expr) -> Expr:
        return self.buffer[self.place(at)]

    def place(self, at: Expr) -> Expr:
        """Where an element of the row is in the buffer; several, where `at` is a vector."""
        if isinstance(at, tirx.Ramp):
            return tirx.Ramp(at.base + self.base, at.stride, at.lanes)
        return at + self.base
