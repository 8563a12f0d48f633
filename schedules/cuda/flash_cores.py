"""How a warp meets keys and values on CUDA cores: weights pass through shared memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.compute import CudaCores, Shared, Warp
from hybridc.schedules.cuda.flash_step import Meeting
from hybridc.schedules.cuda.operands import ROW_BYTES, swizzled

Expr = Any
_FLOAT = 4
_STEP = ROW_BYTES // _FLOAT  # positions in a tile of values


@dataclass(frozen=True)
class CoresMeeting(Meeting):
    """By multiply-adds of float32: a lane has every fourth row, and every eighth column."""

    lanes: ClassVar[int] = 8
    wide: ClassVar[int] = 1

    @property
    def cores(self) -> CudaCores:
        """Products of chunks of four along the depth."""
        return CudaCores()

    @property
    def fragments(self) -> Mapping[str, tuple[int, str]]:
        """A chunk of each row, and of some columns."""
        cut = self.frame.cut
        wide = max(cut.warp_columns, cut.width)
        _, left, right = self.cores.registers(cut.warp_rows, wide)
        return {"left": (left, "float32"), "right": (right, "float32")}

    def row(self, i: Expr) -> Expr:
        """Every fourth."""
        return i * 4 + self.frame.warp.lane // 8

    def scores(self, keys: Expr) -> list[Any]:
        """Tile by tile along the depth."""
        frame, cut = self.frame, self.frame.cut
        return [
            self._multiplied(
                "scores",
                frame.warp,
                frame.query_tile(tile),
                keys + tile * cut.columns * ROW_BYTES,
            )
            for tile in range(cut.depth_tiles)
        ]

    def values(self, values: Expr) -> list[Any]:
        """The weights to shared memory, where they are rows of a product like any other."""
        frame, cut = self.frame, self.frame.cut
        tiles = cut.warp_columns // _STEP
        nothing = tir.number(0)
        warp = Warp(cut.warp_rows, cut.width, nothing, nothing, frame.warp.lane)
        products = [
            self._multiplied(
                "sums",
                warp,
                frame.weights + tile * cut.warp_rows * ROW_BYTES,
                values + (frame.part * tiles + tile) * (cut.own * ROW_BYTES),
            )
            for tile in range(tiles)
        ]
        return [self.cores.each(frame.warp, self._put), tir.call("meet"), *products]

    def _put(self, row: Expr, column: Expr, at: Expr) -> Any:
        """A weight to its place in the warp's own tiles."""
        frame = self.frame
        tile = frame.weights + column // _STEP * (frame.cut.warp_rows * ROW_BYTES)
        place = swizzled(row, column % _STEP // 4) + column % 4 * _FLOAT
        value = tirx.BufferLoad(self.registers["scores"], [at])
        return tir.call("put<float>", tir.address(frame.memory, tile + place), value)

    def _multiplied(self, sums: str, warp: Warp, left: Expr, right: Expr) -> Any:
        """Add the product of two tiles."""
        sides = Shared(self.frame.memory, left, False), Shared(self.frame.memory, right, False)
        names = (sums, "left", "right")
        return self.cores.multiply(warp, sides, [self.registers[name] for name in names])
