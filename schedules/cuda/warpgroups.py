"""Products on Hopper's tensor cores: four warps together multiply tiles that lie in shared memory.

`wgmma` (PTX manual 9.0, "Asynchronous Warpgroup Level Matrix Instructions") reads both operands
from shared memory by descriptors, in the swizzled layout in which tiles are copied here anyway, and
keeps sums as `mma` of 16 rows does: warp i of the four has rows 16 i to 16 i + 15.  A pair of tiles
is multiplied while the block waits for the next one, passes the barrier and begins copies.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.interfaces import Point
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.compute import Shared, Sides, TensorCores, Warp
from hybridc.schedules.cuda.operands import ROW_BYTES

WARPS = 4  # that multiply together
ROWS = 64  # of what they multiply: 16 of each
_WARP_ROWS = ROWS // WARPS
# 192 is for what powers of 2 leave multiprocessors without work: 4096 x 768 are 96 tiles of
# 128 x 256, and 132 of 192 x 128, which is one for each of an H100.
_SIDES = (64, 128, 192, 256)


@dataclass(frozen=True)
class WarpGroups(TensorCores):
    """`wgmma` of 64 rows by all columns of a block; a warp's tile is 16 rows of these."""

    rows: ClassVar[int] = _WARP_ROWS
    columns: ClassVar[int] = 64
    stages: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 6)

    def registers(self, warp_rows: int, warp_columns: int) -> tuple[int, int, int]:
        """Sums alone: operands never are in registers."""
        return warp_rows * warp_columns // 32, 1, 1

    def instructions(self, warp_rows: int, warp_columns: int) -> int:
        """A product and its descriptors in each of four steps."""
        return 20

    def reads(self, warp_rows: int, warp_columns: int) -> float:
        """Four warps read the columns' operand together."""
        return 1 / ROWS + 1 / warp_columns

    def sides(self) -> Sides:
        """Blocks of whole warpgroups, all of whose warps have all columns."""
        return Sides(_SIDES, (_WARP_ROWS,), _SIDES)

    def shaped(self, point: Point) -> Point:
        """A warp has its rows and all columns."""
        return {**point, "warp_rows": _WARP_ROWS, "warp_columns": point["columns"]}

    def arrived(self) -> list[Any]:
        """What was written to shared memory is read by another path than a thread's own loads."""
        return [tir.call("fence_async")]

    def behind(self, stages: int) -> int:
        """One, where there is a stage for it beside those of this step and the next."""
        return int(stages > 2)

    def awaited(self, warp: Warp, registers: list[Any], behind: int) -> list[Any]:
        """Sums are there, and tiles free, once they are waited for."""
        sums = tir.address(registers[0], tir.number(0))
        return [tir.call(f"products_{warp.columns}<{behind}>", sums)]

    def multiply(self, warp: Warp, sides: tuple[Shared, Shared], registers: list[Any]) -> Any:
        """All steps along the depth are under way together."""
        left, right = sides
        first = warp.row // ROWS * ROWS * ROW_BYTES
        kinds = ", ".join(str(int(side.by_depth)) for side in sides)
        return tir.call(
            f"wgmma_{self.dtype}_{warp.columns}<{kinds}>",
            tir.address(registers[0], tir.number(0)),
            tir.address(left.memory, left.base + first),
            tir.address(right.memory, right.base),
        )
