"""Recurrent layers on a GPU: a block of threads for each sequence, which walks through time.

Where one multiprocessor would read the weights of every step for too long, each step is a launch of
its own instead, in which all of them read a part.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import s_tir, tirx

from hybridc.compiler.cuda.gpu import MOST_THREADS
from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.kernels.recurrence import LANES, NAME
from hybridc.compiler.kernels.tensor_expressions import KERNEL
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules.cuda import recurrence_steps as by_step
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.recurrence import FLOAT, State, Steps, of_block, of_lane, parts
from hybridc.schedules.loops import transforms

Expr = Any
_THREADS = (64, 128, 256, 512, MOST_THREADS)
# Bytes that a multiprocessor reads of the L2 cache in a cycle, and cycles from one launch of a
# graph to the next: 2 to 3 µs.
_L2_BYTES, _LAUNCH = 64, 4_000


@dataclass(frozen=True)
class CudaRecurrence(ScheduleRule):
    """All steps of a recurrent layer: a sequence to a block, its state shared; or step by step."""

    priority: ClassVar[int] = 94
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> Steps | NotApplicable:
        """Take the kernels of `compiler/kernels/recurrence.py`."""
        block = func.body.block if isinstance(func.body, s_tir.SBlockRealize) else None
        if block is None or str(block.annotations.get(KERNEL, "")) != NAME:
            return NotApplicable("it holds no recurrence")
        _, (begin, step) = parts(block)
        time, batch, _, padded = (int(extent) for extent in func.params[0].shape)
        return Steps(func, target, (time, batch, padded), begin, step)

    def knobs(self, match: Steps) -> Space:
        """`threads` of a block, and whether each step is one of `launches` or there is only one."""
        return {"threads": _THREADS, "launches": (0, 1)}

    def default(self, match: Steps, target: Target) -> Point:
        """A thread for each hidden unit, as far as a block has them; launches where they pay."""
        if not _fits(match) or self._pays(match):
            return {"threads": by_step.THREADS, "launches": 1}
        enough = [count for count in _THREADS if count >= match.sizes[2]]
        return {"threads": min(enough, default=MOST_THREADS), "launches": 0}

    def canonical(self, match: Steps, point: Point) -> Point:
        """A state that has no room in shared memory is in the GPU's."""
        return point if _fits(match) else {**point, "launches": 1}

    def schedule(self, match: Steps, point: Point) -> Schedule:
        """Written out thread by thread."""
        point = self.canonical(match, point)
        writer = by_step.Writer if point["launches"] else _Writer
        return transforms.new_schedule(writer(match, point["threads"]).function())

    def _pays(self, match: Steps) -> bool:
        """Whether to read the weights on all multiprocessors saves more than launches take."""
        _, batch, padded = match.sizes
        cycles = match.gates * match.hidden * padded * FLOAT / _L2_BYTES
        sms = min(match.target.device.sms, batch * padded // LANES)
        apart = _LAUNCH + cycles * batch / sms
        return apart < cycles * -(-batch // match.target.device.sms)


def _fits(match: Steps) -> bool:
    return match.shared <= match.target.device.shared_per_block


class _Writer:
    """Writes one kernel."""

    def __init__(self, match: Steps, threads: int) -> None:
        self.match, self.threads = match, threads
        self.image, self.thread = tir.variable("image"), tir.variable("thread")
        self.memory = tir.buffer("states", match.shared // FLOAT, "float32", "shared.dyn")
        (state,), _ = parts(match.func.body.block)
        units = match.sizes[2]
        self.state = State(
            state,
            # The block has those of its image.
            lambda indices: indices[0] * units + indices[2],
            lambda place: tir.got("float32", tir.address(self.memory, place)),
            lambda place, value: tir.call("put<float>", tir.address(self.memory, place), value),
        )

    def function(self) -> PrimFunc:
        """The whole kernel."""
        _, batch, _ = self.match.sizes
        walk = self.match.step
        step = tirx.For(
            walk.loop_var, walk.min, walk.extent, tirx.ForKind.SERIAL, self._step(walk.body)
        )
        body = tir.allocated([self.memory], tir.sequence([self._begin(), tir.barrier(), step]))
        axes = [("blockIdx.x", self.image, batch), ("threadIdx.x", self.thread, self.threads)]
        return self.match.func.with_body(tir.launched(axes, body))

    def _begin(self) -> Any:
        """The first state and the first cell."""
        images, units = self.match.begin, self.match.begin.body

        def one(unit: Expr) -> Any:
            axes = {images.loop_var: self.image, units.loop_var: unit}
            return self.state.within(units.body, axes)

        return self._each(one)

    def _step(self, blocks: Any) -> Any:
        """A new state of the last; no thread begins with the next before all are there."""
        images, total, statements = of_block(blocks)
        sums = tir.buffer("total", self.match.gates, "float32", "local")

        def one(unit: Expr) -> Any:
            axes = {images.loop_var: self.image, blocks.loop_var: unit // LANES}
            lane = of_lane(tir.sequence(statements), unit % LANES)
            body = self.state.within(lane, axes, (total, sums))
            return tir.allocated([sums], body)

        return tir.sequence([self._each(one), tir.barrier()])

    def _each(self, one: Any) -> Any:
        """Something for each hidden unit of this thread."""
        units = self.match.sizes[2]

        def turn(i: Expr) -> Any:
            unit = i * self.threads + self.thread
            return tir.when([unit < units] if units % self.threads else [], one(unit))

        return tir.loop(-(-units // self.threads), turn, "turn")
