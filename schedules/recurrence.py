"""All steps of a recurrent layer."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx
from tvm.s_tir import SBlock
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import (
    Match,
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.kernels.recurrence import BLOCKS, NAME
from hybridc.compiler.kernels.tensor_expressions import FLOPS, KERNEL
from hybridc.compiler.target import Target
from hybridc.schedules import _contraction

# Of a step's time on one core, what waking the others may take.
_WORTH = 0.5


@dataclass(frozen=True)
class Steps(Match):
    """The kernel, and the multiply-adds of each of its steps."""

    step: float


@dataclass(frozen=True)
class Recurrence(ScheduleRule):
    """Run the blocks of hidden units of each step side by side, where that is worth it."""

    priority: ClassVar[int] = 90

    def match(self, func: PrimFunc, target: Target) -> Steps | NotApplicable:
        """Take the kernels of `compiler/kernels/recurrence.py`, whose vectors stand already."""
        flops = [int(b.annotations[FLOPS]) for b in _blocks(func) if _is_recurrence(b)]
        if not flops:
            return NotApplicable("it holds no recurrence")
        steps = int(func.params[0].shape[0])
        return Steps(func, target, flops[0] / 2 / steps)

    def knobs(self, match: Steps) -> Space:
        """`threads` over the blocks of each step, or one thread."""
        return {"threads": (0, 1)}

    def default(self, match: Steps, target: Target) -> Point:
        """Threads where a step takes longer than waking them, time and again."""
        machine = target.machine
        cycles = match.step / (machine.fma_per_cycle * target.lanes())
        return {"threads": int(machine.parallel_cycles < _WORTH * cycles)}

    def schedule(self, match: Steps, point: Point) -> Schedule:
        """Change the kind of one loop."""
        kind = tirx.ForKind.PARALLEL if point["threads"] else tirx.ForKind.SERIAL

        def visit(loop: Any) -> Any:
            if str(loop.loop_var.name) != BLOCKS or int(loop.extent) == 1:
                return loop
            return tirx.For(
                *(loop.loop_var, loop.min, loop.extent, kind, loop.body), None, loop.annotations
            )

        body = structural_map(match.func.body, (tirx.For, visit))
        return _contraction.new_schedule(match.func.with_body(body))


def _blocks(func: PrimFunc) -> list[Any]:
    found: list[Any] = []
    structural_walk(func.body, (SBlock, found.append))
    return found


def _is_recurrence(block: Any) -> bool:
    return str(block.annotations.get(KERNEL, "")) == NAME
