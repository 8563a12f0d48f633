"""Whatever no other rule takes on a GPU."""

from dataclasses import dataclass
from typing import ClassVar

from tvm.error import InternalError
from tvm.s_tir import ScheduleError

from hybridc.compiler.interfaces import Match, Point, PrimFunc, Schedule, ScheduleRule, Space
from hybridc.compiler.ir import memory
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules.cuda import any_nest, launch_loops
from hybridc.schedules.loops import analysis, transforms


@dataclass(frozen=True)
class CudaFallback(ScheduleRule):
    """Any kernel: a launch for each block, an element for each thread, reductions in a thread."""

    priority: ClassVar[int] = 0
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> Match:
        """Take everything."""
        return Match(func, target)

    def knobs(self, match: Match) -> Space:
        """`threads` of a block."""
        return {"threads": launch_loops.THREADS}

    def default(self, match: Match, target: Target) -> Point:
        """The usual number."""
        return {"threads": launch_loops.USUAL_THREADS}

    def schedule(self, match: Match, point: Point) -> Schedule:
        """Block by block; where some block is no single store, each statement as a launch."""
        if memory.is_bound(match.func):
            return transforms.new_schedule(match.func)
        found = analysis.blocks(match.func)
        if not all(block.plain or block.single for block in found) or not found:
            return transforms.new_schedule(any_nest.kernel(match.func, point["threads"]))
        schedule = transforms.new_schedule(transforms.inline(match.func))
        for name in [block.name for block in transforms.blocks(schedule)]:
            trial = schedule.copy()
            try:
                _spread(trial, name, point["threads"])
            except (ScheduleError, InternalError, KeyError, ValueError):
                launch_loops.single(schedule, name)
            else:
                schedule = trial
        return schedule


def _spread(schedule: Schedule, name: str, threads: int) -> None:
    info = next(block for block in transforms.blocks(schedule) if block.name == name)
    if not info.plain and info.axes:
        raise ScheduleError(f"{name} is not a single store under constant loops")
    launch_loops.spread(schedule, name, threads)
