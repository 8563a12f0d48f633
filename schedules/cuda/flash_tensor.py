"""How a warp meets keys and values on tensor cores: scores become operands where they are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from hybridc.schedules.cuda import compute, tir
from hybridc.schedules.cuda.attention_cut import STEPS
from hybridc.schedules.cuda.compute import Shared, TensorCores
from hybridc.schedules.cuda.flash_step import Meeting
from hybridc.schedules.cuda.operands import ROW_BYTES

Expr = Any
_TF32 = "tf32"


@dataclass(frozen=True)
class TensorMeeting(Meeting):
    """By `mma`: of 16 rows a lane has two neighbours of two, in each 8 columns."""

    lanes: ClassVar[int] = 4
    wide: ClassVar[int] = 2

    @property
    def cores(self) -> TensorCores:
        """Products of 16 rows by 8 columns and 32 bytes of depth."""
        return TensorCores(dtype=self.frame.cut.kind)

    @property
    def fragments(self) -> Mapping[str, tuple[int, str]]:
        """Queries of all steps of the depth or of one; two tiles of the right; weights."""
        steps = self.frame.cut.depth_steps if self.frame.cut.held else 1
        counts = {"queries": 4 * self._down * steps, "right": 4, "weights": 4 * self._down}
        return {name: (count, "uint32") for name, count in counts.items()}

    def row(self, i: Expr) -> Expr:
        """A lane's first row, the one 8 further on, and so on."""
        return i // 2 * 16 + self.frame.warp.lane // 4 + i % 2 * 8

    def column(self, column: Expr) -> Expr:
        """Of 8 columns of float32 the lanes have neighbours as `mma` takes them on the left.

        That is 4 apart.  Of 16 bits `mma` takes neighbours as it gives them.
        """
        return column if self._in_order else column // 8 * 8 + self._key(column % 8)

    def loaded(self) -> list[Any]:
        """All queries, where they stay in registers."""
        cut = self.frame.cut
        return [self._query(step, step) for step in range(cut.depth_steps)] if cut.held else []

    def scores(self, keys: Expr) -> list[Any]:
        """Step by step along the depth."""
        return [self._score(step, keys) for step in range(self.frame.cut.depth_steps)]

    def values(self, values: Expr) -> list[Any]:
        """Some positions at a time."""
        cut = self.frame.cut
        return [self._weigh(step, values) for step in range(cut.warp_columns // cut.deep)]

    @property
    def _down(self) -> int:
        """Tiles of 16 rows of a warp."""
        return self.frame.cut.warp_rows // 16

    @property
    def _in_order(self) -> bool:
        """Whether keys are met in their order."""
        return self.frame.cut.size == 2

    @property
    def _tiles(self) -> int:
        """Tiles of 8 columns that a warp meets."""
        return self.frame.cut.warp_columns // 8

    def _load(self, name: str, at: Expr, place: Expr, side: Shared) -> Any:
        """Load four registers; rounded here, operands are so once for all products with them."""
        load = compute.load(self.registers[name], at, place, side)
        if self.frame.cut.kind != _TF32:
            return load
        return tir.sequence([load, tir.call("round_tf32", tir.address(self.registers[name], at))])

    def _key(self, column: Expr) -> Expr:
        """Which of 8 keys is met in which of 8 columns."""
        return column if self._in_order else column // 2 + column % 2 * 4

    def _query(self, step: int, slot: int) -> Any:
        """Load what this warp's rows have at one step of the depth."""
        frame = self.frame
        side = Shared(frame.memory, frame.query_tile(step // STEPS), False)
        inner = tir.number(step % STEPS)
        return tir.unrolled(
            self._down,
            lambda i: self._load(
                "queries",
                (slot * self._down + i) * 4,
                compute.left_row(frame.warp, side, i, inner),
                side,
            ),
        )

    def _score(self, step: int, keys: Expr) -> Any:
        """Add the products of one step of the depth."""
        frame, cut = self.frame, self.frame.cut
        slot = step if cut.held else 0
        base = keys + step // STEPS * cut.columns * ROW_BYTES
        side = Shared(frame.memory, base, frame.match.sources[1].by_depth)
        inner = tir.number(step % STEPS)
        # A lane names the row of a column: bits above tell which of the four matrices.
        lane = frame.warp.lane
        warp = replace(frame.warp, lane=lane // 8 * 8 + self._key(lane % 8))

        def pair(j: Expr) -> Any:
            place = compute.right_row(warp, side, j, inner)
            load = self._load("right", 0, place, side)
            queries = slot * self._down * 4
            return tir.sequence(
                [load, self._products("scores", self._tiles, j, "queries", queries)]
            )

        load = [] if cut.held else [self._query(step, 0)]
        return tir.sequence([*load, tir.unrolled(self._tiles // 2, pair)])

    def _products(self, sums: str, tiles: int, pair: Expr, left: str, at: int) -> Any:
        """Multiply all rows of the warp by the two tiles of columns that were just loaded."""
        registers = self.registers

        def one(i: Expr, j: Expr) -> Any:
            return tir.call(
                "mma_rounded_tf32" if self.cores.dtype == _TF32 else f"mma_{self.cores.dtype}",
                tir.address(registers[sums], (i * tiles + pair * 2 + j) * 4),
                tir.address(registers[left], at + i * 4),
                tir.address(registers["right"], j * 2),
            )

        return tir.unrolled(self._down, lambda i: tir.unrolled(2, lambda j: one(i, j)))

    def _weigh(self, step: int, values: Expr) -> Any:
        """Add the values of as many positions as one `mma` multiplies, weighted."""
        frame, cut = self.frame, self.frame.cut
        steps = frame.part * (cut.warp_columns // cut.deep) + step
        base = values + steps // STEPS * (cut.own * ROW_BYTES)
        side = Shared(frame.memory, base, cut.by_depth)
        tile = step * cut.deep // 8

        def narrow(i: Expr) -> Any:
            scores = tir.address(self.registers["scores"], (i * self._tiles + tile) * 4)
            to = tir.address(self.registers["weights"], i * 4)
            return tir.call(f"narrow_{self.cores.dtype}", to, scores)

        def pair(j: Expr) -> Any:
            place = compute.right_row(frame.wide, side, j, steps % STEPS)
            load = self._load("right", 0, place, side)
            return tir.sequence([load, self._products("sums", cut.width // 8, j, "weights", 0)])

        return tir.sequence([tir.unrolled(self._down, narrow), tir.unrolled(cut.width // 16, pair)])
