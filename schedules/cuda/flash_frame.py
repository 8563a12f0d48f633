"""A block of attention on a GPU: where it stands, and where its tiles lie."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hybridc.compiler.cuda.gpu import WARP
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.attention import Flash
from hybridc.schedules.cuda.attention_cut import Cut
from hybridc.schedules.cuda.compute import Warp
from hybridc.schedules.cuda.operands import ROW_BYTES

Expr = Any
_FLOAT = 4


@dataclass(frozen=True)
class Frame:
    """A block, by its number and that of a thread."""

    match: Flash
    cut: Cut
    block: Expr
    thread: Expr

    @property
    def row_blocks(self) -> int:
        """Blocks of rows."""
        return -(-self.match.sizes[1] // self.cut.rows)

    @property
    def blocks(self) -> int:
        """All blocks."""
        return self.row_blocks * self.match.sizes[0] * self.cut.splits

    @property
    def head(self) -> Expr:
        """Which head of which image."""
        return self._whole // self.row_blocks % self.match.sizes[0]

    @property
    def split(self) -> Expr:
        """Which of those that divide the keys: side by side in a cluster, far apart otherwise."""
        if self.cut.together > 1:
            return self.block % self.cut.splits
        return self.block // (self.row_blocks * self.match.sizes[0])

    @property
    def _whole(self) -> Expr:
        """The number of the rows and heads."""
        return self.block // self.cut.together

    @property
    def row_block(self) -> Expr:
        """Which rows.  Causal ones meet the more the later they are: the longest begin first."""
        number = self._whole % self.row_blocks
        return self.row_blocks - 1 - number if self.match.first else number

    @property
    def first_row(self) -> Expr:
        """The first of its rows."""
        return self.row_block * self.cut.rows

    @property
    def part(self) -> Expr:
        """Which of the warps that share rows and divide columns."""
        return self.thread // WARP % self.cut.key_warps

    @property
    def warp(self) -> Warp:
        """A warp's rows, and its columns of a block of keys."""
        cut = self.cut
        row = self.thread // WARP // cut.key_warps * cut.warp_rows
        column = self.part * cut.warp_columns
        return Warp(cut.warp_rows, cut.warp_columns, row, column, self.thread % WARP)

    @property
    def wide(self) -> Warp:
        """A warp's rows, and all features."""
        warp = self.warp
        return Warp(warp.rows, self.cut.width, warp.row, tir.number(0), warp.lane)

    @cached_property
    def memory(self) -> Any:
        """Shared memory: queries, stages of keys and values, weights; in the end, results."""
        return tir.buffer("tiles", self.cut.shared, "uint8", "shared.dyn")

    def query_tile(self, tile: int) -> Expr:
        """Where 64 elements of the queries lie."""
        return tir.number(tile * self.cut.rows * ROW_BYTES)

    def stage(self, step: Expr) -> tuple[Expr, Expr]:
        """Where the keys and the values of a step lie."""
        cut = self.cut
        stage = step % cut.stages if cut.stages > 1 else tir.number(0)
        keys = cut.query_bytes + stage * cut.stage_bytes
        return keys, keys + cut.key_bytes

    @property
    def weights(self) -> Expr:
        """Where a warp's weights lie, which are on their way from scores to values."""
        cut = self.cut
        each = cut.warp_rows * cut.warp_columns * _FLOAT
        return cut.query_bytes + cut.stages * cut.stage_bytes + self.thread // WARP * each

    def key_block(self, step: Expr) -> Expr:
        """Which block of keys a step meets."""
        return self.split * self.each + step if self.cut.splits > 1 else step

    @property
    def key_blocks(self) -> int:
        """Blocks of keys."""
        return -(-self.match.sizes[2] // self.cut.columns)

    @property
    def each(self) -> int:
        """Blocks of keys for each of those that divide them."""
        return -(-self.key_blocks // self.cut.splits)
