"""Recurrent layers on a GPU: a block of threads for each sequence, which walks through time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map

from hybridc.compiler.cuda.gpu import MOST_THREADS
from hybridc.compiler.interfaces import (
    Match,
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
from hybridc.schedules import _cuda_tir as tir
from hybridc.schedules import _loops
from hybridc.schedules._cuda_product import substituted

Expr = Any
_FLOAT = 4
_THREADS = (64, 128, 256, 512, MOST_THREADS)


@dataclass(frozen=True)
class Steps(Match):
    """A recurrence: `[time, batch, hidden units in whole blocks]`, and its two parts.

    `begin` makes the first state, `step` a new one of the last; both are loops over the batch and
    the hidden units.
    """

    sizes: tuple[int, int, int]
    begin: Any
    step: Any

    @property
    def shared(self) -> int:
        """Bytes of shared memory: the state before a step and after it."""
        return 2 * self.sizes[2] * _FLOAT


@dataclass(frozen=True)
class CudaRecurrence(ScheduleRule):
    """All steps of a recurrent layer in one launch: a sequence to a block, its state shared."""

    priority: ClassVar[int] = 94
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> Steps | NotApplicable:
        """Take the kernels of `compiler/kernels/recurrence.py`."""
        block = func.body.block if isinstance(func.body, s_tir.SBlockRealize) else None
        if block is None or str(block.annotations.get(KERNEL, "")) != NAME:
            return NotApplicable("it holds no recurrence")
        _, (begin, step) = _parts(block)
        time, batch, _, padded = (int(extent) for extent in func.params[0].shape)
        made = Steps(func, target, (time, batch, padded), begin, step)
        if made.shared > target.device.shared_per_block:
            return NotApplicable(f"{padded} hidden units have no room in shared memory")
        return made

    def knobs(self, match: Steps) -> Space:
        """`threads` of a block."""
        return {"threads": _THREADS}

    def default(self, match: Steps, target: Target) -> Point:
        """A thread for each hidden unit, as far as a block has them."""
        enough = [count for count in _THREADS if count >= match.sizes[2]]
        return {"threads": min(enough, default=MOST_THREADS)}

    def schedule(self, match: Steps, point: Point) -> Schedule:
        """Written out thread by thread."""
        return _loops.new_schedule(_Writer(match, point["threads"]).function())


class _Writer:
    """Writes one kernel."""

    def __init__(self, match: Steps, threads: int) -> None:
        self.match, self.threads = match, threads
        self.image, self.thread = tir.variable("image"), tir.variable("thread")
        self.memory = tir.buffer("states", match.shared // _FLOAT, "float32", "shared.dyn")
        (self.state,), _ = _parts(match.func.body.block)

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
        return self._each(
            lambda unit: self._with(units.body, {images.loop_var: self.image, units.loop_var: unit})
        )

    def _step(self, blocks: Any) -> Any:
        """A new state of the last; no thread begins with the next before all are there."""
        images = blocks.body
        (total,), statements = _parts(images.body.block)
        sums = tir.buffer("total", int(total.shape[0]), "float32", "local")

        def one(unit: Expr) -> Any:
            axes = {images.loop_var: self.image, blocks.loop_var: unit // LANES}
            lane = _of_lane(tir.sequence(statements), unit % LANES)
            body = self._with(lane, axes, (total, sums))
            return tir.allocated([sums], body)

        return tir.sequence([self._each(one), tir.barrier()])

    def _each(self, one: Any) -> Any:
        """Something for each hidden unit of this thread."""
        units = self.match.sizes[2]

        def turn(i: Expr) -> Any:
            unit = i * self.threads + self.thread
            return tir.when([unit < units] if units % self.threads else [], one(unit))

        return tir.loop(-(-units // self.threads), turn, "turn")

    def _with(
        self, body: Any, axes: Mapping[Any, Expr], sums: tuple[Any, Any] = (None, None)
    ) -> Any:
        """A body with its axes replaced, sums in registers, and states in shared memory."""
        old, new = sums

        def load(node: Any) -> Any:
            if node.source.same_as(self.state):
                return tir.got("float32", self._place(node.indices))
            return tirx.BufferLoad(new, node.indices[:1]) if node.source.same_as(old) else node

        def store(node: Any) -> Any:
            if node.buffer.same_as(self.state):
                return tir.call("put<float>", self._place(node.indices), node.value)
            if node.buffer.same_as(old):
                return tirx.BufferStore(new, node.value, node.indices[:1])
            return node

        typed = {axis: tirx.Cast(str(axis.ty.dtype), value) for axis, value in axes.items()}
        stored = structural_map(substituted(body, typed), (tirx.BufferStore, store))
        return structural_map(stored, (TensorLoad, load))

    def _place(self, indices: Any) -> Expr:
        """Where a state lies: of `[which, image, unit]` the block has those of its image."""
        which, _, unit = indices
        flat = which * self.match.sizes[2] + unit
        return tir.address(self.memory, tirx.Cast("int32", flat))


def _parts(block: Any) -> tuple[list[Any], list[Any]]:
    """The buffers of a block, and its statements."""
    body = list(block.body.seq)
    made = [each.buffer for each in body if isinstance(each, tirx.AllocBuffer)]
    statements = [each for each in body if not isinstance(each, tirx.AllocBuffer)]
    return [*block.alloc_buffers, *made], statements


def _of_lane(body: Any, lane: Expr) -> Any:
    """What vectors compute as one lane of them does."""

    def one(loop: Any) -> Any:
        if loop.kind != tirx.ForKind.VECTORIZED:
            return loop
        typed = tirx.Cast(str(loop.loop_var.ty.dtype), lane)
        return substituted(loop.body, {loop.loop_var: typed})

    return structural_map(body, (tirx.For, one))
