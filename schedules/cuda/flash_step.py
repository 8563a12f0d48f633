"""What a warp does with a block of keys and values: scores, exponentials, weighted values."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
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

    def arrived(self) -> list[Any]:
        """What a thread does between its copies and the barrier behind which they are read."""
        return []

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

    def walked(self, steps: Expr, arrive: Callable[[Expr], Any]) -> Any:
        """All blocks of keys, each of which is met once it has arrived."""
        return tir.loop(steps, lambda step: tir.sequence([arrive(step), self.met(step)]), "step")

    def met(self, step: Expr) -> Any:
        """Scores of a block of keys, their exponentials, and the values weighted by them."""
        keys, values = self.frame.stage(step)
        scores, zero = self.registers["scores"], tirx.const(0, "float32")
        count = int(scores.shape[0])
        return tir.sequence(
            [
                tir.unrolled(count, lambda i: tirx.BufferStore(scores, zero, [i]), "zero"),
                *self.scores(keys),
                *self.logits(step),
                self.softened(),
                tir.when([self.moved()], self.rescaled()),
                *self.values(values),
            ]
        )

    def totals(self) -> Any:
        """Totals of whole rows; where nothing is to be joined, sums are divided by them."""
        total, factor = self.registers["total"], self.registers["factor"]
        name = f"row_total<{self.lanes}>"
        made = tir.unrolled(self.rows, lambda i: tir.call(name, tir.address(total, i)))
        if not self.frame.cut.alone:
            return made

        def inverse(i: Expr) -> Any:
            one = tirx.const(1, "float32")
            return tirx.BufferStore(factor, one / tirx.BufferLoad(total, [i]), [i])

        return tir.sequence([made, tir.unrolled(self.rows, inverse), self.rescaled()])

    def softened(self) -> Any:
        """Scores become exponentials."""
        registers, match, cut = self.registers, self.frame.match, self.frame.cut
        names = ("scores", "largest", "total", "factor")
        known = (self.rows, cut.warp_columns // self.lanes, self.wide, self.lanes, match.masked)
        return tir.call(
            f"softmax<{', '.join(str(int(value)) for value in known)}>",
            *(tir.address(registers[name], tir.number(0)) for name in names),
            tirx.const(match.scale, "float32"),
        )

    def moved(self) -> Expr:
        """Whether the warp has sums that are to be scaled to these."""
        factor = tir.address(self.registers["factor"], tir.number(0))
        return tirx.call_extern("int32", f"hybridc_moved<{self.rows}>", factor) != 0

    def rescaled(self) -> Any:
        """What was summed up so far is scaled."""
        sums, factor = (
            tir.address(self.registers[name], tir.number(0)) for name in ("sums", "factor")
        )
        count = self.frame.cut.width // self.lanes
        return tir.call(f"rescale<{self.rows}, {count}, {self.wide}>", sums, factor)

    def logits(self, step: Expr) -> list[Any]:
        """Mask the scores; what is behind the last column never counts.

        Blocks of keys that every row meets as a whole are let alone.
        """
        match, cut, frame = self.frame.match, self.frame.cut, self.frame
        block = frame.key_block(step)
        edges = [tirx.EQ(block, frame.key_blocks - 1)] if match.sizes[2] % cut.columns else []
        if not match.plain:
            if match.masked or not match.first:
                return [self._masked(step)]
            edges.append((block + 1) * cut.columns > frame.first_row + match.first)
        return [tir.when([tirx.any(*edges)], self._masked(step))] if edges else []

    def _masked(self, step: Expr) -> Any:
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
