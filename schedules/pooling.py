"""Pooling by windows that move over the input."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import Target
from hybridc.schedules.loops import access, analysis
from hybridc.schedules.products import point_figures
from hybridc.schedules.rows import row_loops, row_stages

# A window of 3 x 3 is worth unrolling, one of 7 x 7 only bloats the code.
_UNROLLED_WINDOW = 25


@dataclass(frozen=True)
class Pooling(ScheduleRule):
    """Maximum and average pooling: vectors across channels, padding as a condition."""

    priority: ClassVar[int] = 25

    def match(self, func: PrimFunc, target: Target) -> row_stages.Rows | NotApplicable:
        """Take kernels with one reduction, of one input, over windows that move with the output."""
        reductions = [block for block in analysis.blocks(func) if block.reduction]
        if len(reductions) != 1 or not reductions[0].plain:
            return NotApplicable("it does not hold one plain reduction")
        if len(reductions[0].loads) != 1 or not _windowed(reductions[0]):
            return NotApplicable("its reduction is not over windows of one input")
        if _stretch(reductions[0]) >= target.lanes(reductions[0].widest):
            return NotApplicable("its windows are rows, which fill vectors")
        found = row_stages.analyse(func, target, windows=True)
        if isinstance(found, NotApplicable):
            return found
        if len(found.kept) != found.output_axes:
            return NotApplicable("its output has axes besides the windows' positions")
        return found

    def knobs(self, match: row_stages.Rows) -> Space:
        """`width`: elements side by side; `threads` or one; whether to `unroll` the window."""
        return {**match.space, "unroll": (0, 1) if _window(match) <= _UNROLLED_WINDOW else (0,)}

    def default(self, match: row_stages.Rows, target: Target) -> Point:
        """Accumulators in registers, small windows unrolled."""
        return {**match.point, "unroll": max(self.knobs(match)["unroll"])}

    def figures(self, match: row_stages.Rows, point: Point) -> Mapping[str, float]:
        """Those of a kernel of row stages."""
        return point_figures.rows(match, point)

    def schedule(self, match: row_stages.Rows, point: Point) -> Schedule:
        """Row by row over the output, the window inside, channels in vectors."""
        return row_loops.schedule_rows(match, point)


def _windowed(block: analysis.Block) -> bool:
    """Whether some index mixes an axis of the output with one of the window."""
    return any(
        any(access.uses(index, axis) for axis in block.spatial)
        and any(access.uses(index, axis) for axis in block.reduction)
        for load in block.loads
        for index in load.indices
    )


def _stretch(block: analysis.Block) -> int:
    """How many neighbours in memory the windows hold."""
    (load,) = block.loads
    *_, last = block.reduction
    if block.stride(load, last) != 1:
        return 0
    return prod(block.axes[axis] for axis in analysis.collapsible(block, tuple(block.reduction)))


def _window(match: row_stages.Rows) -> int:
    """The elements of a window."""
    return max(prod(b.reduction.values()) for b in analysis.blocks(match.staged) if b.reduction)
