"""Whatever no other rule takes."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from tvm.error import InternalError
from tvm.s_tir import ScheduleError

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
from hybridc.compiler.tuning.sketches import SKETCH, THREADS, Sketches, sketches
from hybridc.schedules.loops import analysis, transforms
from hybridc.schedules.products import tiling
from hybridc.schedules.rows import row_loops, row_stages


@dataclass(frozen=True)
class Generic(Match):
    """Any kernel, and TVM's own space of it."""

    @cached_property
    def sketches(self) -> Sketches:
        """What TVM's rules make of the kernel."""
        return sketches(self.func, self.target)


@dataclass(frozen=True)
class Fallback(ScheduleRule):
    """Any kernel: each block by itself, with vectors and threads as far as they are legal."""

    priority: ClassVar[int] = 0

    def match(self, func: PrimFunc, target: Target) -> Generic:
        """Take everything."""
        return Generic(func, target)

    def knobs(self, match: Generic) -> Space:
        """`threads` over the outer loops, or one thread; a `sketch` of TVM's with its decisions."""
        return {THREADS: (0, 1), **match.sketches.space}

    def default(self, match: Generic, target: Target) -> Point:
        """No sketch, and threads where the work outweighs waking them."""
        if strips.has_open_sizes(match.func):
            threads = int(target.threads > 1 and not strips.is_strip(match.func))
        else:
            threads = int(analysis.worth_threads(match.func, target))
        return match.sketches.canonical({THREADS: threads, SKETCH: 0})

    def canonical(self, match: Generic, point: Point) -> Point:
        """What the chosen sketch leaves open, as it takes effect."""
        return match.sketches.canonical(point)

    def schedule(self, match: Generic, point: Point) -> Schedule:
        """Block by block; one that resists keeps its loops, in parallel where TVM allows it."""
        if point.get(SKETCH):
            return match.sketches.schedule(point)
        threads = bool(point[THREADS])
        opened = strips.has_open_sizes(match.func)
        schedule = transforms.new_schedule(match.func if opened else transforms.inline(match.func))
        transforms.add_unit_loops(schedule)
        for name in [block.name for block in transforms.blocks(schedule)]:
            for attempt in (_by_kind, _outer_loop):
                trial = schedule.copy()
                try:
                    attempt(trial, name, match.target, threads)
                except (ScheduleError, InternalError):
                    continue
                schedule = trial
                break
        return transforms.finish(schedule)


def _by_kind(schedule: Schedule, name: str, target: Target, threads: bool) -> None:
    """Vectors and threads for a plain block; raises ScheduleError if they do not apply."""
    info = next(block for block in transforms.blocks(schedule) if block.name == name)
    threads = threads and analysis.block_cycles(info, target) >= analysis.PARALLEL_CYCLES
    if not info.plain:
        raise ScheduleError(f"{name} is not a single store under constant loops")
    if not info.reduction:
        transforms.spread(schedule, name, target, 0, threads)
        return
    copy = schedule.cache_write(name, 0, "global")
    if not schedule.get_loops(copy):
        schedule.add_unit_loop(copy)
    output = str(schedule.get(copy).name_hint)
    func = schedule.mod["main"]
    rows = row_stages.plan(func, output, target, only=(name,))
    if isinstance(rows, NotApplicable):
        raise ScheduleError(rows.reason)
    width = rows.point["width"]
    if rows.along and rows.axis % width:
        width = max(w for w in tiling.divisors(rows.axis) if w <= width)
    row_loops.compute_rows(schedule, rows, width, threads)


def _outer_loop(schedule: Schedule, name: str, _target: Target, threads: bool) -> None:
    """The outermost loop in parallel."""
    loops: list[Any] = schedule.get_loops(name)
    if threads and loops:
        schedule.parallel(loops[0])
