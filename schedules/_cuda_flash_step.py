"""What a warp does with a block of keys and values: scores, exponentials, weighted values."""

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from hybridc.schedules import _cuda_compute as compute
from hybridc.schedules import _cuda_tir as tir
from hybridc.schedules._cuda_attention_cuts import DEEP, STEP
from hybridc.schedules._cuda_compute import Shared, TensorCores
from hybridc.schedules._cuda_flash_frame import Frame
from hybridc.schedules._cuda_operands import ROW_BYTES

Expr = Any


@dataclass(frozen=True)
class Meeting:
    """Writes how a warp meets a block of keys."""

    frame: Frame

    @property
    def cores(self) -> TensorCores:
        """What multiplies."""
        return TensorCores(dtype=self.frame.match.scores.dtype)

    @property
    def _tiles(self) -> int:
        """Tiles of 8 columns that a warp meets."""
        return self.frame.cut.warp_columns // 8

    @property
    def _wide(self) -> int:
        """Tiles of 8 features."""
        return self.frame.cut.width // 8

    def query(self, step: int, slot: int) -> Any:
        """Load what this warp's rows have at one step of the depth."""
        frame = self.frame
        side = Shared(frame.memory, frame.query_tile(step * DEEP // STEP), False)
        inner = tir.number(step % (STEP // DEEP))
        return tir.unrolled(
            frame.down,
            lambda i: compute.load(
                frame.registers["queries"],
                (slot * frame.down + i) * 4,
                compute.left_row(frame.warp, side, i, inner),
                side,
            ),
        )

    def met(self, step: Expr) -> Any:
        """Scores of a block of keys, their exponentials, and the values weighted by them."""
        keys, values = self.frame.stage(step)
        scores, zero = self.frame.registers["scores"], tirx.const(0, "float32")
        count = int(scores.shape[0])
        return tir.sequence(
            [
                tir.unrolled(count, lambda i: tirx.BufferStore(scores, zero, [i]), "zero"),
                *(self._score(k, keys) for k in range(self.frame.cut.depth_steps)),
                self._logits(step),
                tir.unrolled(self.frame.down, self._soften),
                *(self._weigh(k, values) for k in range(self.frame.cut.warp_columns // DEEP)),
            ]
        )

    def _soften(self, i: Expr) -> Any:
        """Exponentials of the scores of 16 rows, and what was summed up so far scaled to them."""
        registers = self.frame.registers
        rows = [tir.address(registers[name], i * 2) for name in ("largest", "total", "factor")]
        scores = tir.address(registers["scores"], i * self._tiles * 4)
        sums = tir.address(registers["sums"], i * self._wide * 4)
        return tir.sequence(
            [
                tir.call(f"softmax<{self._tiles}>", scores, *rows),
                tir.call(f"rescale<{self._wide}>", sums, rows[-1]),
            ]
        )

    def _score(self, step: int, keys: Expr) -> Any:
        """Add the products of one step of the depth."""
        frame, cut = self.frame, self.frame.cut
        slot = step if cut.held else 0
        base = keys + step * DEEP // STEP * cut.columns * ROW_BYTES
        side = Shared(frame.memory, base, frame.match.sources[1].by_depth)
        inner = tir.number(step % (STEP // DEEP))

        def pair(j: Expr) -> Any:
            place = compute.right_row(frame.warp, side, j, inner)
            load = compute.load(frame.registers["right"], 0, place, side)
            return tir.sequence(
                [load, self._products("scores", self._tiles, j, "queries", slot * frame.down * 4)]
            )

        load = [] if cut.held else [self.query(step, 0)]
        return tir.sequence([*load, tir.unrolled(self._tiles // 2, pair)])

    def _products(self, sums: str, tiles: int, pair: Expr, left: str, at: int) -> Any:
        """Multiply all rows of the warp by the two tiles of columns that were just loaded."""
        registers = self.frame.registers

        def one(i: Expr, j: Expr) -> Any:
            return tir.call(
                f"mma_{self.cores.dtype}",
                tir.address(registers[sums], (i * tiles + pair * 2 + j) * 4),
                tir.address(registers[left], at + i * 4),
                tir.address(registers["right"], j * 2),
            )

        return tir.unrolled(self.frame.down, lambda i: tir.unrolled(2, lambda j: one(i, j)))

    def _logits(self, step: Expr) -> Any:
        """Scale and mask the scores; what is behind the last column never counts."""
        frame, match, cut = self.frame, self.frame.match, self.frame.cut
        scores, warp = frame.registers["scores"], frame.warp
        _, rows, columns = match.sizes
        never = tirx.const(float("-inf"), "float32")

        def one(row: Expr, column: Expr, at: Expr) -> Any:
            s = frame.first_row + warp.row + row
            t = frame.key_block(step) * cut.columns + warp.column + column
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

    def _weigh(self, step: int, values: Expr) -> Any:
        """Add the values of 16 positions, weighted."""
        frame, cut = self.frame, self.frame.cut
        steps = frame.part * (cut.warp_columns // DEEP) + step
        base = values + steps // (STEP // DEEP) * (cut.own * ROW_BYTES)
        side = Shared(frame.memory, base, cut.by_depth)

        def narrow(i: Expr) -> Any:
            scores = tir.address(frame.registers["scores"], (i * self._tiles + step * 2) * 4)
            to = tir.address(frame.registers["weights"], i * 4)
            return tir.call(f"narrow_{self.cores.dtype}", to, scores)

        def pair(j: Expr) -> Any:
            place = compute.right_row(frame.wide, side, j, steps % (STEP // DEEP))
            load = compute.load(frame.registers["right"], 0, place, side)
            return tir.sequence([load, self._products("sums", self._wide, j, "weights", 0)])

        return tir.sequence([tir.unrolled(frame.down, narrow), tir.unrolled(self._wide // 2, pair)])
