"""Windows on a GPU: pooling, depthwise and narrowly grouped convolutions."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from hybridc.compiler.interfaces import (
    Match,
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules.cuda import launch_loops, product_kernel
from hybridc.schedules.loops import analysis, transforms

# Elements of a window that one thread combines; more are for threads together.
_MOST = 256
# Loops up to so many turns are written out, so that loads do not wait for each other.
_UNROLLED = 32


@dataclass(frozen=True)
class Windows(Match):
    """A kernel that reduces windows, as its reduction and what is behind it."""

    merged: PrimFunc
    reduction: str
    elements: int


@dataclass(frozen=True)
class CudaWindows(ScheduleRule):
    """Reductions over small windows: one thread for each, its sum in a register."""

    priority: ClassVar[int] = 65
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> Windows | NotApplicable:
        """Take kernels with one reduction that reads along sums of axes, kept and reduced."""
        found = analysis.blocks(func)
        if not analysis.plain(found):
            return NotApplicable("a block is not a single store under constant loops")
        reductions = [block for block in found if block.reduction]
        if len(reductions) != 1:
            return NotApplicable(f"it holds {len(reductions)} reductions, not one")
        merged = product_kernel.keeping(func, {reductions[0].name})
        if isinstance(merged, NotApplicable):
            return merged
        block = next(each for each in analysis.blocks(merged) if each.reduction)
        size = prod(block.reduction.values())
        if size > _MOST:
            return NotApplicable(f"its windows have {size} elements, more than {_MOST}")
        if not launch_loops.slides(block):
            return NotApplicable("it reduces no windows")
        return Windows(func, target, merged, block.name, prod(block.spatial.values()))

    def knobs(self, match: Windows) -> Space:
        """`threads` of a block."""
        return {"threads": launch_loops.THREADS}

    def default(self, match: Windows, target: Target) -> Point:
        """As many as leave blocks for all multiprocessors."""
        return {"threads": launch_loops.usual_threads(match.elements, target.device)}

    def schedule(self, match: Windows, point: Point) -> Schedule:
        """Results over threads; a window is a loop of each, and what is behind it follows."""
        schedule = transforms.new_schedule(match.merged)
        output = _output(schedule, match.reduction)
        launch_loops.spread(schedule, output, point["threads"])
        thread = schedule.get_loops(output)[-1]
        stage = schedule.get_sblock(match.reduction)
        schedule.set_scope(stage, 0, "local")
        schedule.compute_at(stage, thread, preserve_unit_loops=True)
        loops = transforms.loops_of(schedule, stage)
        turns = 1
        for axis, extent in reversed(tuple(transforms.info(schedule, stage).reduction.items())):
            turns *= extent
            if turns <= _UNROLLED:
                schedule.unroll(loops[axis])
        return schedule


def _output(schedule: Schedule, reduction: str) -> str:
    """The block behind the reduction; a copy of its results where there is none."""
    others = [block.name for block in transforms.blocks(schedule) if block.name != reduction]
    if others:
        return others[-1]
    return str(schedule.get(schedule.cache_write(reduction, 0, "local")).name_hint)
