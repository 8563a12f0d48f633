"""Products of few rows with packed weights on tensor cores, where the rows are of 16 bits.

CUDA cores take about four instructions for a weight of one row, and one more for each further row:
more than they have time for until memory brings the next weight of 4 bits.  Two are unpacked at
once here, `mma` multiplies them by up to eight rows in an eighth of an instruction, and sums of
groups are scaled.

A lane reads the same pieces as on CUDA cores.  Its four columns are rows of two `mma`, its steps of
the depth stand for any that `mma` takes of it, as long as both sides agree: so nothing is moved
between lanes.
"""

from typing import Any

from tvm import tirx

from hybridc.compiler.cuda.gpu import WARP
from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.cuda import operands, tir
from hybridc.schedules.cuda.product_kernel import substituted
from hybridc.schedules.cuda.thin import Expr, Writer, called
from hybridc.schedules.cuda.thin_match import BESIDE, SUMS, Thin, Thread


def kernel(match: Thin, how: Thread) -> PrimFunc:
    """The kernel that computes a thin product so."""
    return _Writer(match, how).function()


class _Writer(Writer):
    """Writes one kernel."""

    def _own(self) -> list[Any]:
        """What is read of the few rows, by pairs."""
        count = self.match.deep // 2 * self.how.unroll
        self.other = tir.buffer("other", count, "uint32", "local")
        return [self.other]

    @property
    def _row(self) -> Expr:
        """The lane along the columns, which reads this row of the few."""
        return self.thread % WARP // BESIDE

    def _depth(self, step: Expr, turn: int) -> Expr:
        """Lanes read pieces side by side, and turns those behind them: whole lines together."""
        how = self.how
        warp = self.split * how.warps + self.thread // WARP
        first = (step * (how.deep // BESIDE) + warp) * how.unroll + turn
        return (first * BESIDE + self.thread % BESIDE) * self.match.deep

    def _column(self) -> Expr:
        return self.first + self._row * self.match.wide

    def _read(self, k: Expr, turn: int) -> Any:
        """One read of the large side, and of a row of the few."""
        return tir.sequence([super()._read(k, turn), *self._few(k, turn)])

    def _few(self, k: Expr, turn: int) -> list[Any]:
        """A row's elements beside a piece, zeros for rows that there are not."""
        match, pairs = self.match, self.match.deep // 2
        axes, inside = self._axes(match.few, self._row, k)
        there = tirx.all(self._row < self.few, *inside)
        first = turn * pairs
        if match.lies(match.few) == "depth":
            load, _ = operands.plain(match.few.value)
            to, place = tir.address(self.other, tir.number(first)), substituted(load, axes)
            valid = tirx.Select(there, tir.number(1), tir.number(0))
            return [tir.call(f"load_pairs<{pairs}>", to, tirx.address_of(place), valid)]
        dtype = match.few.dtype

        def element(d: int) -> Expr:
            places, _ = self._axes(match.few, self._row, k + d)
            value = substituted(match.few.value, places).astype(dtype)
            return tirx.if_then_else(there, value, tirx.const(0, dtype))

        return [
            tir.call(
                f"pair<{tir.c_type(dtype)}>",
                tir.address(self.other, tir.number(first + i)),
                element(2 * i),
                element(2 * i + 1),
            )
            for i in range(pairs)
        ]

    def _multiply(self, k: Expr, turn: int) -> Any:
        """Add the products of one read with all rows."""
        match = self.match
        assert match.weights is not None
        name = f"multiply_weights<hybridc_{match.few.dtype}, {match.weights.bits}>"
        read, other = turn * match.held, turn * match.deep // 2
        return called(name, [(self.sums, 0), (self.read, read), (self.other, other)])

    def _meet(self) -> Any:
        """The sums of each warp to shared memory."""
        match, warp = self.match, self.thread // WARP

        def put(i: int) -> Any:
            row = self.thread % BESIDE * 2 + i % 2
            column = self._row * match.wide + i // 2
            place = (warp * self.few + row) * self.columns + column
            value = tirx.BufferLoad(self.sums, [tir.number(i)])
            return tir.when([row < self.few], tir.call("put<float>", self._at(place), value))

        return tir.sequence(map(put, range(SUMS)))

    def _at(self, place: Expr) -> Expr:
        return tir.address(self.memory, place)
