"""Pooling row by row: windows are reduced over their rows, in whole vectors, then over columns."""

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
from hybridc.schedules.loops import transforms
from hybridc.schedules.products import tiling
from hybridc.schedules.rows import image_boxes, moving_windows, window_loops
from hybridc.schedules.rows.moving_windows import Windows

# Where channels lie side by side a window is whole vectors anyway; it is taken apart where that
# saves a fifth of the loads, counting the store and the load of what lies between the two steps.
_BETWEEN = 2
_SAVES = 0.8


@dataclass(frozen=True)
class RowPooling(ScheduleRule):
    """Pooling by rows and then columns: vectors along the row, whatever the stride and padding."""

    priority: ClassVar[int] = 26

    def match(self, func: PrimFunc, target: Target) -> Windows | NotApplicable:
        """Take reductions over windows of two steps, where these cost less than one."""
        found = moving_windows.analyse(func, target)
        if isinstance(found, NotApplicable):
            return found
        if image_boxes.guarded(found) is None:
            return NotApplicable("its padding is not a range of each axis")
        if found.inner and not _saves(found):
            return NotApplicable("its windows are read in whole vectors, few of them twice")
        if _panel(found) is None:
            return NotApplicable("a row of its input does not fit the stack")
        return found

    def knobs(self, match: Windows) -> Space:
        """`threads` over the rows of the output, or one thread."""
        return {"threads": (0, 1)}

    def default(self, match: Windows, target: Target) -> Point:
        """Threads where the work outweighs waking them."""
        return {"threads": int(match.threads)}

    def schedule(self, match: Windows, point: Point) -> Schedule:
        """A loop over rows of the output, with a row of columns between the two steps."""
        panel = _panel(match)
        assert panel is not None
        body = window_loops.Writer(match, panel).body(bool(point["threads"]))
        return transforms.new_schedule(transforms.with_own_names(match.func.with_body(body)))


def _saves(windows: Windows) -> bool:
    rows, taps = prod(windows.rows.values()), windows.taps
    return rows * windows.stride + taps + _BETWEEN <= _SAVES * rows * taps


def _panel(windows: Windows) -> int | None:
    """The channels of a task, of which a row of columns stays on the stack; None if none does."""
    lanes = windows.target.lanes(windows.dtype)
    most = moving_windows.ROW_BYTES // windows.itemsize
    if not windows.inner:
        return 1 if windows.columns + windows.stride * lanes <= most else None
    last = windows.block.spatial[windows.inner[-1]]
    rest = windows.channels // last
    fits = [
        panel
        for panel in tiling.divisors(last)
        if panel * rest * windows.columns <= most and (panel % lanes == 0 or panel == last)
    ]
    return max(fits, default=None)
