"""Shared by the rules for dense, convolution and batched products: analysis and tiling."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import SBlock
from tvm.s_tir import Schedule as TVMSchedule
from tvm.tirx.transform import ForceNarrowIndexToInt32
from tvm_ffi import structural_walk

from hybridc.compiler import strips
from hybridc.compiler.interfaces import Match, NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.kernels.products.packing import FEW_ROWS, WIDEN
from hybridc.compiler.kernels.tensor_expressions import KERNEL, kinds_in
from hybridc.schedules.loops import vector_loops
from hybridc.schedules.products import accumulators, canonical, tiling
from hybridc.schedules.products.problem import Problem


@dataclass(frozen=True)
class Contraction(Match):
    """A kernel with one product, and the numbers that its tiling depends on."""

    problem: Problem


@dataclass(frozen=True)
class Tiles:
    """Where the blocks of a tiled kernel stand: `task` is the parallel loop."""

    product: Any
    task: Any
    whole_image: bool
    all_columns: bool


def new_schedule(func: PrimFunc) -> Schedule:
    """A schedule of one function; a failing primitive raises without drawing the whole IR.

    Loops count in 32 bits.  Code generation would narrow them later, but then loses the hint by
    which a ragged last tile becomes a loop of its own.  TVM narrows no function that has 64-bit
    integers as data.
    """
    module = tvm.IRModule({"main": func})
    if not _has_int64_data(func):
        module = ForceNarrowIndexToInt32()(module)
    return TVMSchedule(module, error_render_level="fast")


def _has_int64_data(func: PrimFunc) -> bool:
    buffers = strips.buffers_of(func)
    structural_walk(func.body, (SBlock, lambda block: buffers.extend(block.alloc_buffers)))
    structural_walk(func.body, (tirx.AllocBuffer, lambda made: buffers.append(made.buffer)))
    return any(str(buffer.dtype) == "int64" for buffer in buffers)


def find_product(
    func: PrimFunc, kind: str, within: Collection[str] = ()
) -> tuple[Schedule, Any] | NotApplicable:
    """The schedule and the product block of a kernel of `kind`, or why it is none.

    `within` are the names of reductions that belong to the product.
    """
    # Most kernels are of another kind: a schedule takes ten times as long to make as this look.
    count = kinds_in(func).count(kind)
    if count != 1:
        return NotApplicable(f"it holds {count} products of kind {kind}, not one")
    schedule = new_schedule(func)
    blocks = all_blocks(schedule)
    products = [b for b in blocks if str(schedule.get(b).annotations.get(KERNEL, "")) == kind]
    reductions = [b for b in blocks if _reduces(schedule.get(b))]
    if len([b for b in reductions if name(schedule, b) not in within]) != 1:
        return NotApplicable("it holds another reduction besides the product")
    return schedule, products[0]


def product_of(schedule: Schedule) -> Any:
    """The product block of a kernel that `find_product` took."""
    return next(b for b in all_blocks(schedule) if KERNEL in schedule.get(b).annotations)


def all_blocks(schedule: Schedule) -> list[Any]:
    """Every block of the function, in program order."""
    root = str(schedule.mod["main"].body.block.name_hint)  # most are "root", scans are not
    return list(schedule.get_child_blocks(schedule.get_sblock(root)))


def named(schedule: Schedule, wanted: str) -> Any:
    """The block of a name; None if there is none."""
    return next((b for b in all_blocks(schedule) if name(schedule, b) == wanted), None)


def extents(schedule: Schedule, block: Any) -> list[int]:
    """The extents of a block's axes."""
    return [int(var.dom.extent) for var in schedule.get(block).iter_vars]


def source_shape(schedule: Schedule, product: Any) -> list[int]:
    """The shape of the (padded) activations that the product reads."""
    return [int(extent) for extent in schedule.get(product).reads[0].source.shape]


def inline_epilogue(schedule: Schedule, product: Any, keep: Iterable[str] = ()) -> Any:
    """Inline what surrounds the product's result into one block, and return that block.

    Where the last block is larger than the product (a broadcast follows), that one stays a
    loop nest of its own, and the block that only stores the product is returned.
    """
    feeding = {name(schedule, b) for b in schedule.get_producers(product)}
    store = schedule.get_consumers(product)[0]
    last = all_blocks(schedule)[-1]
    if extents(schedule, store) == extents(schedule, last):
        store = last
    kept = {
        *keep,
        *feeding,
        name(schedule, product),
        name(schedule, store),
        name(schedule, last),
    }
    for block in all_blocks(schedule):
        if name(schedule, block) not in kept:
            schedule.compute_inline(block)
    if name(schedule, store) != name(schedule, last):
        spread(schedule, last)
    return store


def opened(match: Match, keep: Iterable[str] = ()) -> tuple[Schedule, Any, Any]:
    """A schedule of a kernel, its product, and the block that stores it, the epilogue inside.

    Blocks with the names to `keep` are no part of the epilogue.
    """
    schedule = new_schedule(match.func)
    product = product_of(schedule)
    store = inline_epilogue(schedule, product, keep)
    if isinstance(match, Contraction) and match.problem.apart:
        written = name(schedule, store)
        schedule = new_schedule(canonical.part_groups(schedule, store, match.problem))
        product, store = product_of(schedule), named(schedule, written)
    return schedule, product, store


def tile(  # noqa: PLR0913 - what is tiled, how, and options
    match: Contraction,
    schedule: Schedule,
    product: Any,
    store: Any,
    point: Point,
    *,
    within: Callable[[Any], None] | None = None,
    joined: bool = False,
    by_rows: bool = False,
    through: bool = False,
) -> Tiles:
    """Cut the storing block into tasks and register tiles, and compute the product in them.

    The storing block's loops are images and image rows (as far as the kernel has them), rows,
    columns.  The product's accumulators are the tile: initialised, updated over the whole depth
    in registers, and only then handed to the epilogue, whose vectors may be `joined` to one; or
    `within` computes it in the loop over tiles that it is given.  A task goes through its image
    rows panel by panel, or `by_rows` through the panels of one row after the other.  Tasks of all
    image rows follow each other, or those `through` the last axis of images of the same rows.
    """
    problem = match.problem
    images, height, rows, columns = _canonical_loops(schedule, store, problem)
    vectors = tiling.vectors_at_most(problem, point["vectors"])
    tile_rows = min(point["rows"], problem.rows)
    row_tile, row = schedule.split(rows, [None, tile_rows])
    units, panels = problem.units(tile_rows), problem.panels(vectors)
    chunk = tiling.divisor_below(units, point["chunk"])
    width = tiling.divisor_below(panels, point["panels"])
    panel, part, lane = canonical.split_columns(schedule, columns, problem, vectors, width)
    panel_task, panel = schedule.split(panel, [None, width])
    if problem.height > 1:
        unit_task, height = schedule.split(height, [None, chunk])
        inner = [height, panel, row_tile] if by_rows else [panel, height, row_tile]
    else:
        unit_task, row_tile = schedule.split(row_tile, [None, chunk])
        inner = [panel, row_tile]
    before = [*images[:-1], unit_task, *images[-1:]] if through else [*images, unit_task]
    schedule.reorder(*before, panel_task, *inner, row, part, lane)
    task = schedule.fuse(*before, panel_task)
    if int(schedule.get(task).extent) > 1:
        schedule.parallel(task)
    straighten(schedule, *((schedule.fuse(part, lane),) if joined else (lane, part)), row)
    _mark_last(schedule, panel, row_tile, problem, vectors)
    if within is not None:
        within(row_tile)
    else:
        instruction = accumulators.instruction_of(schedule, product, match.target)
        accumulators.accumulate_at(schedule, product, row_tile, problem.lanes, instruction)
    return Tiles(product, task, chunk == units, width == panels)


def _mark_last(
    schedule: Schedule, panel: Any, row_tile: Any, problem: Problem, vectors: int
) -> None:
    """Make loops of their own, free of bounds checks, of full tiles and the ragged last one.

    A last panel that overlaps is whole, and moved back (`vector_loops.straighten`).
    """
    moved = problem.moved(vectors)
    if strips.is_strip(schedule.mod["main"]) and problem.height == 1 and problem.rows <= FEW_ROWS:
        schedule.annotate(panel, strips.INSIDE, 1)
    for loop in (row_tile,) if moved else (panel, row_tile):
        schedule.annotate(loop, "pragma_loop_partition_hint", 1)
    if moved:
        schedule.annotate(panel, vector_loops.TAIL, problem.lanes - moved)
        schedule.annotate(panel, vector_loops.OVERLAP, 1)


def spread(schedule: Schedule, block: Any) -> None:
    """Schedule a block that only moves data: parallel outside, vectors along the last axis."""
    *outer, last = schedule.get_loops(block)
    if outer:
        schedule.parallel(schedule.fuse(*outer))
    vectorize_copy(schedule, last)


def widens(schedule: Schedule, block: Any) -> bool:
    """Whether a block converts activations to the type in which they are multiplied."""
    return name(schedule, block).startswith(WIDEN)


def copy_in_task(schedule: Schedule, block: Any, tiles: Tiles) -> None:
    """Make a copy of activations, in vectors, in the task that reads it."""
    schedule.compute_at(block, tiles.task)
    vectorize_copy(schedule, schedule.get_loops(block)[-1])


def split_lanes(schedule: Schedule, loop: Any, lanes: int) -> tuple[Any, Any]:
    """Cut a loop into vectors, as wide as divides its extent."""
    outer, lane = schedule.split(loop, [None, gcd(int(schedule.get(loop).extent), lanes)])
    return outer, lane


def vectorize_copy(schedule: Schedule, loop: Any, lanes: int = 16) -> None:
    """Vectorise a loop by the widest divisor of its extent; odd extents stay scalar."""
    extent = schedule.get(loop).extent
    if not isinstance(extent, tirx.IntImm):
        return
    width = tiling.divisor_below(int(extent), lanes)
    if width > 1:
        schedule.vectorize(schedule.split(loop, [None, width])[1])


def _canonical_loops(
    schedule: Schedule, store: Any, problem: Problem
) -> tuple[list[Any], Any, Any, Sequence[Any]]:
    """The store's loops as images, image rows, rows and columns, or groups and their columns."""
    trailing = 2 if problem.apart else 1
    if problem.height > 1:
        *images, height, rows = schedule.get_loops(store)[:-trailing]
        return images, height, rows, schedule.get_loops(store)[-trailing:]
    canonical.flatten_rows(schedule, store, problem, trailing)
    *images, rows = schedule.get_loops(store)[:-trailing]
    return images, None, rows, schedule.get_loops(store)[-trailing:]


def straighten(schedule: Schedule, lane: Any, *unrolled: Any) -> None:
    """Vectorise the innermost loop of a register tile and unroll the others."""
    schedule.vectorize(lane)
    for loop in unrolled:
        schedule.unroll(loop)


def _reduces(block: Any) -> bool:
    return any(int(var.iter_type) == tirx.IterVar.CommReduce for var in block.iter_vars)


def name(schedule: Schedule, block: Any) -> str:
    """The name of a block."""
    return str(schedule.get(block).name_hint)
