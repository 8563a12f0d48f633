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
from hybridc.schedules import _analysis, _collapse, _loops, _pointwise


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
        if reason := _pointwise.unless_pointwise(_analysis.blocks(func), single=True):
            return reason
        inlined = _loops.inline(func)
        return ElementwiseMatch(
            func, target, inlined, _lanes(inlined, target), _analysis.worth_threads(inlined, target)
        )

    def knobs(self, match: ElementwiseMatch) -> Space:
        """`lanes` of the vectors (0: each block's own best), `threads` or one thread."""
        return {"lanes": (0, *match.lanes), "threads": (0, 1)}

    def default(self, match: ElementwiseMatch, target: Target) -> Point:
        """Whole registers; threads where the work outweighs waking them."""
        return {"lanes": 0, "threads": int(match.threads)}

    def schedule(self, match: ElementwiseMatch, point: Point) -> Schedule:
        """One loop nest for each output, and for each value that is too costly to repeat."""
        schedule = _loops.new_schedule(_collapse.collapsed(match.inlined, match.target))
        for block in _loops.blocks(schedule):
            _loops.spread(
                schedule, block.name, match.target, point["lanes"], bool(point["threads"])
            )
        return _loops.finish(schedule)


def _lanes(func: PrimFunc, target: Target) -> tuple[int, ...]:
    """Lanes that fit every block of the kernel."""
    choices: set[int] | None = None
    for block in (block for block in _analysis.blocks(func) if not block.single):
        group = _analysis.collapsible(block, tuple(block.spatial))
        extent = 1
        for axis in group:
            extent *= block.spatial[axis]
        own = _analysis.lane_choices(extent, block.divisor(group[-1]), target.lanes(block.widest))
        choices = set(own) if choices is None else choices & set(own)
    return tuple(sorted(choices or ()))
