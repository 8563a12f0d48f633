"""How four warps meet keys and values together on Hopper's tensor cores.

`wgmma` reads queries and keys from shared memory, and weights from the registers in which scores
became them.  While a block of keys is multiplied, so are the values of the one before; both are
under way while the other warpgroups take exponentials, and the values while this one does.  The
same overlap is in FlashAttention-3 (J. Shah et al., 2024).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.flash_tensor import TensorMeeting
from hybridc.schedules.cuda.operands import ROW_BYTES
from hybridc.schedules.cuda.warpgroups import ROWS

Expr = Any


@dataclass(frozen=True)
class WarpgroupMeeting(TensorMeeting):
    """By `wgmma`: a warp has 16 of its warpgroup's 64 rows, of which lanes have their part."""

    @property
    def fragments(self) -> Mapping[str, tuple[int, str]]:
        """Weights of a block of keys, in pairs; all else is read from shared memory."""
        return {"weights": (self.frame.cut.columns // 4, "uint32")}

    def arrived(self) -> list[Any]:
        """What was copied is read by another path than a thread's own loads."""
        return [tir.call("fence_async")]

    def walked(self, steps: Expr, arrive: Callable[[Expr], Any]) -> Any:
        """The values of a block of keys are met together with the next keys."""

        def turn(before: Expr) -> Any:
            step = before + 1
            products = [*self.scores(self._keys(step)), *self.values(self._values(before))]
            made = [*products, self._awaited("scores", len(products) - self._tiles_down)]
            made += [*self.logits(step), self.softened(), *self._settled(), self._narrowed()]
            return tir.sequence([arrive(step), *made])

        first, last = tir.number(0), steps - 1
        begin = [arrive(first), *self.scores(self._keys(first)), self._awaited("scores", 0)]
        begin += [*self.logits(first), self.softened(), self._narrowed()]
        end = [*self.values(self._values(last)), self._awaited("sums", 0)]
        return tir.sequence([*begin, tir.loop(last, turn, "step"), *end])

    def scores(self, keys: Expr) -> list[Any]:
        """Begin the products of queries and keys, a tile of the depth after the other."""
        frame, cut = self.frame, self.frame.cut
        own = frame.warp.row // ROWS * (ROWS * ROW_BYTES)
        by_depth = int(frame.match.sources[1].by_depth)
        return [
            tir.call(
                f"wgmma_{cut.kind}_{cut.columns}<0, {by_depth}, {int(tile == 0)}>",
                tir.address(self.registers["scores"], tir.number(0)),
                tir.address(frame.memory, frame.query_tile(tile) + own),
                tir.address(frame.memory, keys + tile * cut.columns * ROW_BYTES),
            )
            for tile in range(cut.depth_tiles)
        ]

    def values(self, values: Expr) -> list[Any]:
        """Begin to add the weighted values, a tile of positions after the other."""
        frame, cut = self.frame, self.frame.cut
        return [
            tir.call(
                f"wgmma_held_{cut.kind}_{cut.width}<{int(cut.by_depth)}>",
                tir.address(self.registers["sums"], tir.number(0)),
                tir.address(self.registers["weights"], tir.number(tile * cut.step // 4)),
                tir.address(frame.memory, values + tile * cut.own * ROW_BYTES),
            )
            for tile in range(cut.columns // cut.step)
        ]

    @property
    def _tiles_down(self) -> int:
        """Groups of products that make the scores."""
        return self.frame.cut.depth_tiles

    def _keys(self, step: Expr) -> Expr:
        return self.frame.stage(step)[0]

    def _values(self, step: Expr) -> Expr:
        return self.frame.stage(step)[1]

    def _awaited(self, name: str, behind: int) -> Any:
        """Wait until only so many groups of products are under way."""
        cut = self.frame.cut
        columns = {"scores": cut.columns, "sums": cut.width}[name]
        sums = tir.address(self.registers[name], tir.number(0))
        return tir.call(f"products_{columns}<{behind}>", sums)

    def _settled(self) -> list[Any]:
        """Wait for the sums, which are scaled where that is needed.

        The assembler waits as early as it may: only a branch keeps that behind the exponentials.
        """
        count = self.frame.cut.columns // 2
        now = tir.call(f"now<{count}>", tir.address(self.registers["scores"], tir.number(0)))
        settled = self._awaited("sums", 0)
        scaled = tir.when([self.moved()], tir.sequence([settled, self.rescaled()]))
        return [now, scaled, settled]

    def _narrowed(self) -> Any:
        """Exponentials as weights of 16 bits, 16 columns at a time."""
        scores, weights = self.registers["scores"], self.registers["weights"]

        def narrow(i: Expr) -> Any:
            places = tir.address(weights, i * 4), tir.address(scores, i * 8)
            return tir.call(f"narrow_{self.cores.dtype}", *places)

        return tir.unrolled(self.frame.cut.columns // 16, narrow)
