"""Schedule small elementwise kernels as one loop of vectors."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from tvm import s_tir, tirx

from hybridc.compiler.interfaces import (
    Match,
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import Target


@dataclass(frozen=True)
class FlatLoop(ScheduleRule):
    """Elementwise kernels of one block and few elements: one loop of vectors, on one thread."""

    priority: ClassVar[int] = 12  # asked before `elementwise`, whose priority is 10
    most: int = 4096  # elements; more are worth the threads that `elementwise` gives them

    def match(self, func: PrimFunc, target: Target) -> Match | NotApplicable:
        """Take one block without sums, over sizes that are known."""
        schedule = s_tir.Schedule(func)
        block, *others = schedule.get_child_blocks(schedule.get_sblock("root"))
        axes = schedule.get(block).iter_vars
        if others or any(int(axis.iter_type) != tirx.IterVar.DataPar for axis in axes):
            return NotApplicable("it is not a single elementwise block")
        extents = [axis.dom.extent for axis in axes]
        if not axes or not all(isinstance(extent, tirx.IntImm) for extent in extents):
            return NotApplicable("it has no axes of known size")
        if (elements := prod(map(int, extents))) > self.most:
            return NotApplicable(f"it has {elements} elements, more than {self.most}")
        return Match(func, target)

    def knobs(self, match: Match) -> Space:
        """`lanes` of the vectors."""
        return {"lanes": (4, 8, 16)}

    def default(self, match: Match, target: Target) -> Point:
        """As many lanes as a register holds."""
        return {"lanes": target.lanes()}

    def schedule(self, match: Match, point: Point) -> Schedule:
        """Fuse all loops, and split vectors off."""
        schedule = s_tir.Schedule(match.func)
        (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
        loop = schedule.fuse(*schedule.get_loops(block))
        _, lanes = schedule.split(loop, [None, point["lanes"]])
        schedule.vectorize(lanes)
        return schedule
