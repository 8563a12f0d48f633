"""What a warp does with a block of keys and values: scores, exponentials, weighted values."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from tvm import tirx

from hybridc.compiler.cuda.gpu import WARP
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.compute import Compute
from hybridc.schedules.cuda.flash_frame import Frame

Expr = Any


@dataclass(frozen=True)
class Meeting(ABC):
    """Writes how a warp meets a block of keys.

    `lanes` have a row together; of each of as many rows a lane has `wide` neighbours.
    """

    frame: Frame
    lanes: ClassVar[int]
    wide: ClassVar[int]

    @property
    @abstractmethod
    def cores(self) -> Compute:
        """What multiplies."""

    @property
    @abstractmethod
    def fragments(self) -> Mapping[str, tuple[int, str]]:
        """Registers for operands, by name: how many, of which type."""

    @abstractmethod
    def row(self, i: Expr) -> Expr:
        """Which of a warp's rows is the i-th of a lane."""

    @abstractmethod
    def scores(self, keys: Expr) -> list[Any]:
        """Add the products of queries and keys."""

    @abstractmethod
    def values(self, values: Expr) -> list[Any]:
        """Add the weighted values."""

    def loaded(self) -> list[Any]:
        """What is loaded of the queries once they have arrived."""
        return []

    def column(self, column: Expr) -> Expr:
        """Which of its keys a warp meets in a column of the scores."""
        return column

    @property
    def rows(self) -> int:
        """Rows of a lane."""
        return self.frame.cut.warp_rows * self.lanes // WARP

    @cached_property
    def registers(self) -> dict[str, Any]:
        """A thread's registers by name."""
        cut = self.frame.cut
        floats = {
            "scores": cut.warp_rows * cut.warp_columns // WARP,
            "sums": cut.warp_rows * cut.width // WARP,
            **dict.fromkeys(("largest", "total", "factor"), self.rows),
        }
        kinds = {name: (count, "float32") for name, count in floats.items()}
        kinds.update(self.fragments)
        return {
            name: tir.buffer(name, count, dtype, "local") for name, (count, dtype) in kinds.items()
        }

    def met(self, step: Expr) -> Any:
        """Scores of a block of keys, their exponentials, and the values weighted by them."""
        keys, values = self.frame.stage(step)
        scores, zero = self.registers["scores"], tirx.const(0, "float32")
        count = int(scores.shape[0])
        return tir.sequence(
            [
                tir.unrolled(count, lambda i: tirx.BufferStore(scores, zero, [i]), "zero"),
                *self.scores(keys),
                self._logits(step),
                tir.unrolled(self.rows, self._soften),
                *self.values(values),
            ]
        )

    def totals(self) -> Any:
        """What lanes have summed up of a row each gets as a whole."""
        total = self.registers["total"]
        return tir.unrolled(
            self.rows, lambda i: tir.call(f"row_total<{self.lanes}>", tir.address(total, i))
        )

    def _soften(self, i: Expr) -> Any:
        """Exponentials of the scores of a row, and what was summed up so far scaled to them."""
        registers, cut = self.registers, self.frame.cut
        rows = [tir.address(registers[name], i) for name in ("largest", "total", "factor")]
        counts = (cut.warp_columns // self.lanes, cut.width // self.lanes)
        scores, sums = (
            tir.address(registers[name], self._first(i, count))
            for name, count in zip(("scores", "sums"), counts, strict=True)
        )
        return tir.sequence(
            [
                tir.call(f"softmax<{counts[0]}, {self.wide}, {self.lanes}>", scores, *rows),
                tir.call(f"rescale<{counts[1]}, {self.wide}>", sums, rows[-1]),
            ]
        )

    def _first(self, row: Expr, count: int) -> Expr:
        """Where the first element of a lane's row is, of so many that it has of each."""
        wide = self.wide
        return row // wide * (wide * count) + row % wide * wide if wide > 1 else row * count

    def _logits(self, step: Expr) -> Any:
        """Scale and mask the scores; what is behind the last column never counts."""
        frame, match, cut = self.frame, self.frame.match, self.frame.cut
        scores, warp = self.registers["scores"], frame.warp
        _, rows, columns = match.sizes
        never = tirx.const(float("-inf"), "float32")

        def one(row: Expr, column: Expr, at: Expr) -> Any:
            s = frame.first_row + warp.row + row
            t = frame.key_block(step) * cut.columns + warp.column + self.column(column)
            axes = {
                **tir.unflatten(frame.head, match.scores.batch),
                **tir.unflatten(s, match.scores.left.own),
                **tir.unflatten(t, match.scores.right.own),
            }
            value = match.logit(axes, tirx.BufferLoad(scores, [at]))
            bounds = [t < columns] if columns % cut.columns else []
            bounds += [s < rows] if match.masked and rows % cut.rows else []
            if bounds:
                value = tirx.if_then_else(tirx.all(*bounds), value, never)
            return tirx.BufferStore(scores, value, [at])

        return self.cores.each(warp, one)
