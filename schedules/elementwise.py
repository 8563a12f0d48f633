"""Elementwise kernels: any chain of them is one pass over memory."""

from dataclasses import dataclass
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
from hybridc.compiler.target import Target
from hybridc.schedules.loops import analysis, collapse, pointwise, transforms


@dataclass(frozen=True)
class ElementwiseMatch(Match):
    """The kernel with all that can be inlined inlined; `outputs` names the blocks left to tile."""

    inlined: PrimFunc
    lanes: tuple[int, ...]
    threads: bool


@dataclass(frozen=True)
class Elementwise(ScheduleRule):
    """Elementwise kernels: inlined into one pass, vectors along memory, threads over the rest."""

    priority: ClassVar[int] = 10

    def match(self, func: PrimFunc, target: Target) -> ElementwiseMatch | NotApplicable:
        """Take kernels without reductions: arithmetic, casts, broadcasts, gathers of rows."""
        if reason := pointwise.unless_pointwise(analysis.blocks(func), single=True):
            return reason
        inlined = transforms.inline(func)
        return ElementwiseMatch(
            func, target, inlined, _lanes(inlined, target), analysis.worth_threads(inlined, target)
        )

    def knobs(self, match: ElementwiseMatch) -> Space:
        """`lanes` of the vectors (0: each block's own best), `threads` or one thread."""
        return {"lanes": (0, *match.lanes), "threads": (0, 1)}

    def default(self, match: ElementwiseMatch, target: Target) -> Point:
        """Whole registers; threads where the work outweighs waking them."""
        return {"lanes": 0, "threads": int(match.threads)}

    def schedule(self, match: ElementwiseMatch, point: Point) -> Schedule:
        """One loop nest for each output, and for each value that is too costly to repeat."""
        schedule = transforms.new_schedule(collapse.collapsed(match.inlined, match.target))
        for block in transforms.blocks(schedule):
            transforms.spread(
                schedule, block.name, match.target, point["lanes"], bool(point["threads"])
            )
        return transforms.finish(schedule)


def _lanes(func: PrimFunc, target: Target) -> tuple[int, ...]:
    """Lanes that fit every block of the kernel."""
    choices: set[int] | None = None
    for block in (block for block in analysis.blocks(func) if not block.single):
        group = analysis.collapsible(block, tuple(block.spatial))
        extent = 1
        for axis in group:
            extent *= block.spatial[axis]
        own = analysis.lane_choices(extent, block.divisor(group[-1]), target.lanes(block.widest))
        choices = set(own) if choices is None else choices & set(own)
    return tuple(sorted(choices or ()))
