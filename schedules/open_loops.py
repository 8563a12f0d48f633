"""Kernels with open sizes that no strip makes fixed: softmax over an open axis, its sums, joins."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler import strips
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
from hybridc.schedules.loops import analysis, open_nests, transforms


@dataclass(frozen=True)
class OpenLoops(ScheduleRule):
    """Schedule blocks whose loops have open bounds: whole vectors first, then what is left.

    Reductions over an open axis add up (or compare) vectors of lanes, and those at the end.
    """

    priority: ClassVar[int] = 5

    def match(self, func: PrimFunc, target: Target) -> Match | NotApplicable:
        """Take kernels of plain stores, one of whose loops has an open bound."""
        found = analysis.blocks(func)
        if not found or not all(open_nests.is_plain(block) for block in found):
            return NotApplicable("a block is not a single store under a loop for each axis")
        loops = any(extent < 0 for block in found for extent in block.axes.values())
        if not loops and not strips.has_open_sizes(func):
            return NotApplicable("its sizes are fixed")
        return Match(func, target)

    def knobs(self, match: Match) -> Space:
        """`threads` over the outer loops of each block, or one thread."""
        return {"threads": (0, 1)}

    def default(self, match: Match, target: Target) -> Point:
        """All threads, as nobody knows how long an open loop is; strips are spread by others."""
        return {"threads": int(target.threads > 1 and not strips.is_strip(match.func))}

    def schedule(self, match: Match, point: Point) -> Schedule:
        """Block by block, each with loops of its own."""
        func = open_nests.inlined(match.func)
        threads = bool(point["threads"])
        return transforms.new_schedule(open_nests.written(func, match.target, threads))
