"""Transformations that the rules for memory-bound kernels share."""

from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir.prim import expr as prim
from tvm.s_tir import ScheduleError
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import PrimFunc, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules.loops import access, analysis, parts, vector_loops

Loop = Any  # tvm.s_tir.schedule.LoopRV

# Operations that may be done again in every iteration of a larger loop nest that needs them.
_REPEATED_OPERATIONS = 2
# Operations that may be done again in each of several blocks, rather than stored and read back.
_SHARED_OPERATIONS = 6
# Operations that may stand several times in one block.  LLVM computes them once, but the passes
# before it handle every copy.
_MERGED_OPERATIONS = 100
# Below a quarter of a register, LLVM's own vectoriser does better with the plain loop.
_NARROW = 4
# Tasks for each thread that even out a division of rows among threads with a remainder.
_TASKS = 4


def new_schedule(func: PrimFunc) -> Schedule:
    """A schedule of one function, `main`; a failing primitive raises without drawing the IR."""
    return s_tir.Schedule(tvm.IRModule({"main": func}), error_render_level="fast")


def blocks(schedule: Schedule) -> tuple[analysis.Block, ...]:
    """The blocks as the schedule has them now."""
    return analysis.blocks(schedule.mod["main"])


def info(schedule: Schedule, block: Any) -> analysis.Block:
    """One block as the schedule has it now."""
    return analysis.describe(schedule.get(block))


def add_unit_loops(schedule: Schedule) -> None:
    """Give each block without a loop one; TVM's `rfactor` fails where a neighbour has none."""
    for block in blocks(schedule):
        if not schedule.get_loops(block.name):
            schedule.add_unit_loop(schedule.get_sblock(block.name))


def loops_of(schedule: Schedule, block: Any) -> dict[Any, Loop]:
    """The innermost loops around a block by the axes that they run over, in loop order.

    Holds where each axis has a loop of its own: for new blocks, and behind `compute_at` with its
    unit loops.
    """
    axes = [axis.var for axis in schedule.get(block).iter_vars]
    return dict(zip(axes, schedule.get_loops(block)[-len(axes) :], strict=True))


def inline(func: PrimFunc) -> PrimFunc:
    """Inline the elementwise blocks that it is better to compute again than to store."""
    schedule = new_schedule(func)
    for name in reversed([b.name for b in blocks(schedule)]):
        found = blocks(schedule)
        this = next(b for b in found if b.name == name)
        if (
            this in analysis.outputs(func, found)
            or this.reduction
            or not (this.plain or this.single)
        ):
            continue
        if _inlinable(this, analysis.readers(this, found)):
            try:
                schedule.compute_inline(name)
            except ScheduleError:
                continue  # TVM's conditions are stricter than ours; the block stays a stage
    return with_own_names(schedule.mod["main"])


def with_own_names(func: PrimFunc) -> PrimFunc:
    """Give each value bound in an expression a variable of its own.

    Inlining copies such expressions as they are, and TVM refuses a variable bound twice.
    """

    def rename(let: Any) -> Any:
        var = tirx.Var(let.var.name, let.var.ty)
        body = structural_map(let.body, (type(var), lambda v: var if v.same_as(let.var) else v))
        return prim.Let(var, let.value, body)

    return func.with_body(structural_map(func.body, (prim.Let, rename)))


def stage(func: PrimFunc) -> tuple[PrimFunc, str]:
    """Inline what can be, and see to it that the only output is written by an elementwise block.

    Returns the function and the name of that block; what it reads can then be computed bit by
    bit before it.
    """
    inlined = inline(func)
    (output,) = analysis.outputs(inlined, analysis.blocks(inlined))
    if not output.reduction:
        return inlined, output.name
    schedule = new_schedule(inlined)
    copy = schedule.cache_write(output.name, 0, "global")
    return schedule.mod["main"], str(schedule.get(copy).name_hint)


def _inlinable(this: analysis.Block, readers: tuple[analysis.Block, ...]) -> bool:
    if any(_repeats(reader, this) for reader in readers):
        return this.operations <= _REPEATED_OPERATIONS
    if len({reader.name for reader in readers}) > 1:
        return this.operations <= _SHARED_OPERATIONS
    return len(readers) <= 1 or this.operations <= _MERGED_OPERATIONS


def _repeats(reader: analysis.Block, this: analysis.Block) -> bool:
    """Whether a block inlined into a larger one is computed more than once for an element.

    A concatenation is larger than its parts, but reads each of their elements once.
    """
    if reader.iterations < 2 * this.iterations:
        return False
    guarded = [
        load
        for load in access.guarded(reader.body)
        if any(load.source.same_as(write) for write in this.writes)
    ]
    wide = [axis for axis, extent in reader.spatial.items() if extent > 1]
    if reader.reduction or not guarded:
        return True
    return not all(access.uses(load, axis) for load in guarded for axis in wide)


def vectorize(schedule: Schedule, loop: Loop, lanes: int, twice: bool = False) -> Loop:
    """Cut a loop into vectors and return the loop over them; the last vector may be narrower.

    Where elements may be computed `twice`, the last vector is whole and overlaps the one before;
    that is slow where the next stage reads them back at once, from two stores.
    """
    extent = int(schedule.get(loop).extent)
    lanes = min(lanes, extent)
    if lanes == 1:
        return loop
    vectors, lane = schedule.split(loop, [None, lanes])
    schedule.vectorize(lane)
    if extent % lanes:
        schedule.annotate(vectors, vector_loops.TAIL, extent % lanes)
        if twice:
            schedule.annotate(vectors, vector_loops.OVERLAP, 1)
    return vectors


def spread(schedule: Schedule, name: str, target: Target, lanes: int, threads: bool) -> None:
    """Schedule an elementwise block by itself: vectors along the contiguous axes, threads outside.

    `lanes` of 0 picks them.  A single number needs no schedule.
    """
    loops = schedule.get_loops(name)
    if not loops:
        return
    this = info(schedule, schedule.get_sblock(name))
    group = analysis.collapsible(this, tuple(this.spatial))
    outer, inner = loops[: -len(group)], schedule.fuse(*loops[-len(group) :])
    extent, native = int(schedule.get(inner).extent), target.lanes(this.widest)
    divisor = this.divisor(group[-1])
    width = lanes or analysis.best_lanes(extent, divisor, native)
    narrow = width * _NARROW <= native
    in_parts = len(group) == 1 and width < native and parts.pay(this, group[-1])
    if in_parts:
        schedule.annotate(inner, parts.PARTS, native)
    plain = narrow or in_parts
    vectors = inner if plain else vectorize(schedule, inner, width, twice=divisor == 0)
    if not threads:
        return
    if not outer:
        schedule.parallel(vectors)
        return
    rows = this.iterations // extent
    if rows % target.threads == 0 or rows >= _TASKS * target.threads or extent % width or in_parts:
        schedule.parallel(schedule.fuse(*outer))
    else:
        schedule.parallel(schedule.fuse(*outer, vectors))


def finish(schedule: Schedule) -> Schedule:
    """The schedule with its vectors freed of conditions; nothing can be scheduled behind it."""
    func = schedule.mod["main"]
    return new_schedule(func.with_body(vector_loops.straighten(parts.parted(func.body))))
