"""Attention on a GPU, written out: scores never leave a block.

A block keeps some rows' queries and walks along the keys.  Of each block of keys, a warp multiplies
its rows' queries by its columns' keys, takes their exponentials against the largest score so far,
and multiplies these by the values, while the next keys and values are copied.  On tensor cores the
exponentials stay in registers; CUDA cores, whose lanes have other elements of an operand than of a
result, read them of shared memory.  For few rows, several warps share the rows and divide the
columns, and several blocks divide the keys; another launch joins what these have summed up.
T. Dao, FlashAttention-2, 2023.
"""

from typing import Any

from tvm import tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.attention import Flash
from hybridc.schedules.cuda.attention_cut import PAD, Cut
from hybridc.schedules.cuda.flash_cores import CoresMeeting
from hybridc.schedules.cuda.flash_frame import Frame
from hybridc.schedules.cuda.flash_results import Results
from hybridc.schedules.cuda.flash_step import Meeting
from hybridc.schedules.cuda.flash_tensor import TensorMeeting
from hybridc.schedules.cuda.flash_warpgroups import WarpgroupMeeting
from hybridc.schedules.cuda.operands import ROW_BYTES, Place, Tile

Expr = Any
_FLOAT = 4


def kernel(match: Flash, cut: Cut) -> PrimFunc:
    """The kernel that computes an attention so."""
    return _Writer(match, cut).function()


def _meeting(cut: Cut) -> type[TensorMeeting | CoresMeeting]:
    if cut.warpgroups:
        return WarpgroupMeeting
    return TensorMeeting if cut.tensor else CoresMeeting


class _Writer:
    """Writes one kernel."""

    def __init__(self, match: Flash, cut: Cut) -> None:
        self.match, self.cut = match, cut
        self.frame = Frame(match, cut, tir.variable("block"), tir.variable("thread"))
        self.meeting: Meeting = _meeting(cut)(self.frame)
        self.results = Results(match, cut)

    def function(self) -> PrimFunc:
        """The whole kernel, and the one that joins what blocks have of the same rows."""
        frame = self.frame
        body = tir.sequence([self._start(), self._queries(), self._walk(), self._finish()])
        axes = [
            ("blockIdx.x", frame.block, frame.blocks),
            ("threadIdx.x", frame.thread, self.cut.threads),
        ]
        buffers = [frame.memory, *self.meeting.registers.values()]
        first = tir.launched(axes, tir.allocated(buffers, body))
        return self.match.func.with_body(self.results.joined(first))

    def _start(self) -> Any:
        """No sums and no largest score yet."""

        def fill(name: str, value: float) -> Any:
            buffer, constant = self.meeting.registers[name], tirx.const(value, "float32")
            count = int(buffer.shape[0])
            return tir.unrolled(count, lambda i: tirx.BufferStore(buffer, constant, [i]), "zero")

        never = float("-inf")
        return tir.sequence([fill("sums", 0.0), fill("total", 0.0), fill("largest", never)])

    def _queries(self) -> Any:
        """Queries to shared memory, and from there to registers if they fit; the first keys."""
        frame, cut = self.frame, self.cut
        place = self._place(self.match.scores, frame.first_row, cut.rows)
        copies = [
            Tile(self.match.sources[0], place, tir.number(i), frame.memory, frame.query_tile(i))
            for i in range(cut.depth_tiles)
        ]
        ahead = [
            tir.sequence([self._copy_if(tir.number(i)), tir.call("commit")])
            for i in range(cut.ahead)
        ]
        made = [*(tile.copied() for tile in copies), tir.call("commit"), *ahead]
        if loads := self.meeting.loaded():
            made += [tir.call(f"wait<{cut.ahead}>"), tir.barrier(), *loads]
        return tir.sequence(made)

    def _place(self, product: Any, first: Expr, own: int) -> Place:
        batch = tir.unflatten(self.frame.head, product.batch)
        return Place(batch, first, own, self.frame.thread, self.cut.threads)

    def _steps(self) -> Expr:
        """Blocks of keys that this block walks along."""
        cut, frame = self.cut, self.frame
        whole: Expr = frame.key_blocks
        if self.match.first:
            met = self.match.first - 1 + frame.first_row + cut.rows
            whole = tirx.min(tir.number(whole), (met + cut.columns - 1) // cut.columns)
        if cut.splits == 1:
            return whole
        return tirx.min(tir.number(frame.each), whole - frame.split * frame.each)

    def _walk(self) -> Any:
        ahead, arrived = self.cut.ahead, self.meeting.arrived()

        def arrive(step: Expr) -> Any:
            begin = [self._copy_if(step + ahead), tir.call("commit")]
            if not ahead:
                return tir.sequence([tir.barrier(), *begin, tir.call("wait<0>"), tir.barrier()])
            wait = tir.call(f"wait<{ahead - 1}>")
            return tir.sequence([wait, *arrived, tir.barrier(), *begin])

        return self.meeting.walked(self._steps(), arrive)

    def _copy_if(self, step: Expr) -> Any:
        return tir.when([step < self._steps()], self._copy(step))

    def _copy(self, step: Expr) -> Any:
        """A block of keys and one of values to their stage."""
        match, cut, frame = self.match, self.cut, self.frame
        block = frame.key_block(step)
        keys, values = frame.stage(step)
        _, key, value = match.sources
        place = self._place(match.scores, block * cut.columns, cut.columns)
        tiles = [
            Tile(key, place, tir.number(i), frame.memory, keys + i * cut.columns * ROW_BYTES)
            for i in range(cut.depth_tiles)
        ]
        place, each = self._place(match.values, tir.number(0), cut.own), cut.columns // cut.step
        tiles += [
            Tile(value, place, block * each + i, frame.memory, values + i * cut.own * ROW_BYTES)
            for i in range(each)
        ]
        return tir.sequence(tile.copied() for tile in tiles)

    def _finish(self) -> Any:
        """The sums to shared memory, and from there to the output or to the joining launch."""
        frame, cut, meeting = self.frame, self.cut, self.meeting
        warp = frame.warp

        def put(place: Expr, name: str, at: Expr, scale: float = 1) -> Any:
            to = tir.address(frame.memory, place * _FLOAT)
            value = tirx.BufferLoad(meeting.registers[name], [at])
            return tir.call("put<float>", to, value * scale)

        def keep(row: Expr, column: Expr, at: Expr) -> Any:
            row = (warp.row + row) * (cut.width + PAD)
            return put(frame.part * cut.part_floats + row + column, "sums", at)

        def mark(i: Expr) -> Any:
            row = frame.part * cut.rows + warp.row + meeting.row(i)
            place = cut.key_warps * cut.part_floats + row * 2
            return tir.sequence(
                [put(place, "largest", i, self.match.scale), put(place + 1, "total", i)]
            )

        first = [tirx.EQ(warp.lane % meeting.lanes, 0)]
        return tir.sequence(
            [
                meeting.totals(),
                *(tir.call("wait<0>"), tir.barrier()),
                meeting.cores.each(frame.wide, keep),
                tir.when(first, tir.unrolled(meeting.rows, mark)),
                self.results.of_block(
                    frame.memory, frame.thread, frame.head, frame.first_row, frame.split
                ),
            ]
        )
