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
        """Take one block without sums, with loops of known size."""
        if func.body.block.name_hint != "root":
            return NotApplicable("it is opaque: its loops stand outside of blocks")
        schedule = s_tir.Schedule(func)
        block, *others = schedule.get_child_blocks(schedule.get_sblock("root"))
        axes = schedule.get(block).iter_vars
        if others or any(axis.iter_type != tirx.IterVar.DataPar for axis in axes):
            return NotApplicable("it is not a single elementwise block")
        if not schedule.get_loops(block):
            return NotApplicable("it has no loops")
        extents = [axis.dom.extent for axis in axes]
        if not all(isinstance(extent, tirx.IntImm) for extent in extents):
            return NotApplicable("its sizes are open")
        if (elements := prod(map(int, extents))) > self.most:
            return NotApplicable(f"it has {elements} elements, more than {self.most}")
        return Match(func, target)

    def knobs(self, match: Match) -> Space:
        """The number of `lanes` in a vector."""
        return {"lanes": (4, 8, 16)}

    def default(self, match: Match, target: Target) -> Point:
        """As many lanes as a register holds."""
        return {"lanes": target.lanes()}

    def schedule(self, match: Match, point: Point) -> Schedule:
        """Fuse all loops, then split off a vector."""
        schedule = s_tir.Schedule(match.func)
        (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
        loop = schedule.fuse(*schedule.get_loops(block))
        _, lanes = schedule.split(loop, [None, point["lanes"]])
        schedule.vectorize(lanes)
        return schedule
