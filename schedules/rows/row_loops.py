"""Schedules the stages of a row; `row_stages` says what they are."""

from typing import Any

from tvm import s_tir, tirx
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Point, PrimFunc, Schedule
from hybridc.compiler.kernels.products.packing import round_up
from hybridc.schedules.loops import addresses, analysis, transforms, vector_loops
from hybridc.schedules.rows.row_stages import Rows

# Lanes left to be added one by one at the end of a tree of additions.
_SCALARS = 4
# Loops over at most this many vectors, or elements of a window, are unrolled, so that
# accumulators become registers and addresses constants.
_UNROLLED = 16
# Reductions that may combine an element twice, so that the last vector is a whole one too: what a
# narrower one leaves in a wide accumulator is stored and read back in other pieces, for which a CPU
# waits (2364 maxima of 197: 70 us, Emerald Rapids).
_IDEMPOTENT = (prim.Max, prim.Min)
# Elements that are added to an accumulator in the cache for each time that it is loaded and stored.
_AT_ONCE = 4


def schedule_rows(rows: Rows, point: Point) -> Schedule:
    """Apply a point of `rows.space`."""
    func = rows.staged
    if rows.along and rows.fused == 1:  # axes that count as one make whole vectors already
        for name in rows.stages:
            func = _pad_reduction(func, name, point["width"])
    schedule = transforms.new_schedule(func)
    transforms.add_unit_loops(schedule)
    compute_rows(schedule, rows, point["width"], bool(point["threads"]), bool(point.get("unroll")))
    finished = transforms.finish(schedule)
    made = addresses.straightened(finished.mod["main"])
    return transforms.new_schedule(rows.merged.restored(made) if rows.merged else made)


def compute_rows(
    schedule: Schedule, rows: Rows, width: int, threads: bool, unroll: bool = False
) -> None:
    """Compute the stages of each row inside the loop over rows; `unroll` the reduced axes."""
    for name in rows.apart:
        transforms.spread(schedule, name, rows.target, 0, threads=False)
    blocks = [schedule.get_sblock(name) for name in rows.stages]
    sums = [b for b in blocks if rows.along and transforms.info(schedule, b).reduction]
    trees = {block: _tree(schedule, block, rows, width) for block in sums}
    partial = [block for tree in trees.values() for block in tree]
    order = [stage for block in blocks for stage in (*trees.get(block, ()), block)]
    task = _row_loop(schedule, rows, width)
    if threads:
        schedule.parallel(task)
    for block in reversed(order):
        schedule.compute_at(block, task, preserve_unit_loops=True)
    for block in (*order, schedule.get_sblock(rows.output)):
        if not rows.along:
            _across(schedule, block, rows, unroll)
        elif block in partial:
            _partial(schedule, block, width, rows)
        else:
            _along(schedule, block, rows)


def _row_loop(schedule: Schedule, rows: Rows, width: int) -> Any:
    """The loop over rows of the output block, or over groups of rows side by side."""
    loops = schedule.get_loops(rows.output)
    if not rows.kept:
        # One row alone: a scalar's block has a unit loop already, others get one around theirs.
        return schedule.add_unit_loop(loops[0]) if rows.output_axes else loops[0]
    kept = [loops[position] for position in rows.kept]
    reduced = [loop for position, loop in enumerate(loops) if position not in rows.kept]
    if rows.along:
        schedule.reorder(*kept, *reduced)
        return schedule.fuse(*kept)
    group, side = schedule.split(kept[-1], [None, width])
    schedule.reorder(*kept[:-1], group, *reduced, side)
    return schedule.fuse(*kept[:-1], group)


def _tree(schedule: Schedule, block: Any, rows: Rows, width: int) -> list[Any]:
    """Make a reduction along the row one of vectors, and a tree of narrower ones behind it.

    Returns the blocks of partial results; the block itself adds the last few lanes.
    """
    spatial = len(transforms.info(schedule, block).spatial)
    axis = schedule.fuse(*schedule.get_loops(block)[-rows.fused :])
    made: list[Any] = []
    for lanes in _tree_widths(width, rows.native):
        _, lane = schedule.split(axis, [None, lanes])
        made.append(schedule.rfactor(lane, spatial))
        axis = schedule.get_loops(block)[-1]
    return made


def _tree_widths(width: int, native: int) -> list[int]:
    """Lanes of the tree's stages; each divides the one before it."""
    widths = [width]
    for limit in (native, _SCALARS):
        if widths[-1] > limit and widths[-1] % limit == 0:
            widths.append(limit)
    return [lanes for lanes in widths if lanes > 1]


def _partial(schedule: Schedule, block: Any, width: int, rows: Rows) -> None:
    """A stage of the tree: its lane innermost."""
    info = transforms.info(schedule, block)
    loops = transforms.loops_of(schedule, block)
    lane = loops.pop(next(iter(info.spatial)))
    schedule.reorder(*loops.values(), lane)
    schedule.vectorize(lane)
    reduced = [loop for axis, loop in loops.items() if axis in info.reduction]
    if int(schedule.get(lane).extent) == width and rows.axis % width:
        schedule.annotate(reduced[-1], vector_loops.TAIL, rows.axis % width)
        if isinstance(schedule.get(block).body.value, _IDEMPOTENT):
            schedule.annotate(reduced[-1], vector_loops.AGAIN, 1)
    schedule.decompose_reduction(block, next(iter(loops.values())))


def _along(schedule: Schedule, block: Any, rows: Rows) -> None:
    """The end of a tree, or an elementwise stage of a row: vectors along its contiguous axes."""
    info = transforms.info(schedule, block)
    if info.name == rows.output:
        reduced = [axis for i, axis in enumerate(info.spatial) if i not in rows.kept]
        loops = dict(zip(reduced, schedule.get_loops(block)[1:], strict=True))
    else:
        loops = transforms.loops_of(schedule, block)
    if info.reduction:
        for axis in info.reduction:
            if int(schedule.get(loops[axis]).extent) <= _UNROLLED:
                schedule.unroll(loops[axis])
        schedule.decompose_reduction(block, next(iter(loops.values())))
        return
    axes = tuple(axis for axis, loop in loops.items() if int(schedule.get(loop).extent) > 1)
    if not axes:
        return
    group = analysis.collapsible(info, axes)
    axis = schedule.fuse(*(loops[axis] for axis in group))
    extent = int(schedule.get(axis).extent)
    native = rows.target.lanes(info.widest)
    transforms.vectorize(
        schedule, axis, analysis.best_lanes(extent, info.divisor(group[-1]), native)
    )


def _across(schedule: Schedule, block: Any, rows: Rows, unroll: bool) -> None:
    """A stage of rows side by side: vectors over the rows, accumulators in registers."""
    info = transforms.info(schedule, block)
    if info.name == rows.output:
        side = schedule.get_loops(block)[-1]
        outer: list[Any] = []
    else:
        loops = transforms.loops_of(schedule, block)
        side = loops.pop(list(info.spatial)[-1])
        spatial = [loop for axis, loop in loops.items() if axis in info.spatial]
        outer = [loop for axis, loop in loops.items() if axis in info.reduction]
        schedule.reorder(*spatial, *outer, side)
    native = rows.target.lanes(info.widest)
    extent = int(schedule.get(side).extent)
    lanes = analysis.best_lanes(extent, info.divisor(list(info.spatial)[-1]), native)
    vectors = transforms.vectorize(schedule, side, lanes)
    if 1 < lanes < extent <= _UNROLLED * lanes:
        schedule.unroll(vectors)
    elif 1 < lanes < extent and info.reduction and not unroll:
        outer[-1] = _several(schedule, block, outer[-1], vectors)
    for loop in outer if unroll else ():
        schedule.unroll(loop)
    if info.reduction:
        schedule.decompose_reduction(block, outer[0])


def _several(schedule: Schedule, block: Any, loop: Any, vectors: Any) -> Any:
    """Add several elements to an accumulator that lies in the cache; returns the loop outside."""
    extent = int(schedule.get(loop).extent)
    factor = max(d for d in range(1, _AT_ONCE + 1) if extent % d == 0)
    outside, inside = schedule.split(loop, [None, factor])
    lane = schedule.get_loops(block)[-1]
    schedule.reorder(outside, vectors, inside, lane)
    schedule.unroll(inside)
    return outside


def _pad_reduction(func: PrimFunc, name: str, width: int) -> PrimFunc:
    """Round the innermost reduced axis up to whole vectors; what lies behind counts nothing.

    TVM has no primitive for it, and loses the condition of a split that leaves a rest when the
    block moves.  `vector_loops` takes the condition out again.
    """

    def block(realize: Any) -> Any:
        old = realize.block
        if old.name_hint != name or not _uneven(old, width):
            return realize
        *axes, last = old.iter_vars
        dtype = str(last.var.ty.dtype)
        extent = int(last.dom.extent)
        domain = type(last.dom)(tirx.const(0, dtype), tirx.const(round_up(extent, width), dtype))
        inside = tirx.likely(last.var < tirx.const(extent, dtype))
        store = old.body
        term = tirx.if_then_else(inside, store.value.b, old.init.value)
        body = tirx.BufferStore(store.buffer, type(store.value)(store.value.a, term), store.indices)
        padded = [*axes, tirx.IterVar(domain, last.var, last.iter_type)]
        return vector_loops.replaced(realize, body, padded)

    def loop(node: Any) -> Any:
        inner = node.body
        if not isinstance(inner, s_tir.SBlockRealize) or inner.block.name_hint != name:
            return node
        extent = inner.block.iter_vars[-1].dom.extent
        return tirx.For(node.loop_var, node.min, extent, node.kind, inner, None, node.annotations)

    body = structural_map(func.body, [(s_tir.SBlockRealize, block), (tirx.For, loop)])
    return func.with_body(body)


def _uneven(block: Any, width: int) -> bool:
    last = block.iter_vars[-1]
    return int(last.iter_type) == tirx.IterVar.CommReduce and int(last.dom.extent) % width != 0
