"""The innermost part of every product: a tile of accumulators that stays in registers."""

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from hybridc.compiler.interfaces import Schedule
from hybridc.compiler.kernels.products.inner_product import CROSSED
from hybridc.compiler.kernels.products.packing import WIDEN
from hybridc.compiler.target import Target
from hybridc.schedules.products import dot_products
from hybridc.schedules.products.dot_products import Instruction

_WORDS = "int16"


def accumulate_at(
    schedule: Schedule, product: Any, at: Any, lanes: int, instruction: Instruction | None = None
) -> Any:
    """Compute a product's tile in registers: depth outside, unrolled rows and vectors inside.

    The multiply-add is a vector's, or the instruction for narrow types.  Returns the outermost
    loop over the depth.
    """
    column = schedule.get_loops(product)[-_reduced_axes(schedule, product) - 1]
    # TVM's `compute_at` takes no block whose only vector it has counted already.
    if instruction and int(schedule.get(column).extent) > lanes:
        vectors = dot_products.block_of(schedule, product, lanes, instruction)
        depth, _, init = _accumulate(schedule, vectors, at)
        (start,) = schedule.get_child_blocks(init)
        schedule.vectorize(schedule.get_loops(start)[-1])
        dot_products.mark(schedule, vectors, instruction)
        return depth
    depth, lane, init = _accumulate(
        schedule, product, at, lanes, instruction.group if instruction else 1
    )
    if instruction:
        schedule.vectorize(schedule.get_loops(init)[-1])
        dot_products.mark(schedule, schedule.blockize(lane), instruction)
    return depth


def _accumulate(
    schedule: Schedule, product: Any, at: Any, lanes: int = 1, group: int = 1
) -> tuple[Any, Any, Any]:
    """Bring a product's loops into order; returns those over depth and lanes, and the start.

    The columns are cut by `lanes` and the depth by `group` where these are more than one; without
    a group, the lanes are a vector.
    """
    schedule.compute_at(product, at, preserve_unit_loops=True)
    reduction = _reduced_axes(schedule, product)
    loops = schedule.get_loops(product)
    depth = loops[-reduction:]
    row, part = loops[-reduction - 2 : -reduction]
    inner, lane = [row, part], None
    if lanes > 1:
        inner[1], lane = schedule.split(part, [None, lanes])
        inner.append(lane)
    if group > 1:
        depth[-1], element = schedule.split(depth[-1], [None, group])
        inner.append(element)
    schedule.reorder(*depth, *inner)
    if lanes > 1 and group == 1:
        schedule.vectorize(lane)
    init = schedule.decompose_reduction(product, depth[0])
    starts = schedule.get_loops(init)[-2 - (lanes > 1) :]
    for loop in (*inner[:2], *starts[:2]):
        schedule.unroll(loop)
    return depth[0], lane, init


def divided(
    schedule: Schedule, product: Any, lanes: int, sums: int
) -> Callable[[Any], None] | None:
    """Divide the sums over a product's depth into so many; None if they stay whole.

    Returns what computes a tile in the loop that it is given: all sums side by side, then theirs.
    """
    if sums == 1:
        return None
    _, part = schedule.split(schedule.get_loops(product)[-1], [None, sums])
    partial = schedule.rfactor(part, 0)

    def compute(at: Any) -> None:
        for block in (product, partial):
            schedule.compute_at(block, at, preserve_unit_loops=True)
        *_, depth, row, column = schedule.get_loops(product)
        schedule.unroll(depth)
        _added(schedule, product, (row, column), depth, lanes)
        *_, part, row, column, depth = schedule.get_loops(partial)
        _added(schedule, partial, (part, row, column), depth, lanes)

    return compute


def _added(schedule: Schedule, block: Any, spatial: Sequence[Any], depth: Any, lanes: int) -> None:
    """Sum a block up over its depth, its other loops inside, the last of them in vectors."""
    *outer, column = spatial
    vector, lane = schedule.split(column, [None, lanes])
    schedule.reorder(depth, *outer, vector, lane)
    schedule.vectorize(lane)
    init = schedule.decompose_reduction(block, depth)
    *starts, start = schedule.get_loops(init)[-len(spatial) - 1 :]
    schedule.vectorize(start)
    for loop in (*outer, vector, *starts):
        schedule.unroll(loop)


def instruction_of(schedule: Schedule, product: Any, target: Target) -> Instruction | None:
    """The target's instruction for the types that a product multiplies, where it has one.

    Weights of one tap for each lane, as those of depthwise convolutions, are no dot products.
    """
    block = schedule.get(product)
    if CROSSED in block.annotations:
        return dot_products.CROSSED
    data, weight = (read.source for read in list(block.reads)[:2])
    last, rank = int(weight.shape[-1]), len(weight.shape)
    found = dot_products.instruction_for(str(data.dtype), str(weight.dtype), target)
    if found is None:
        return None
    # A product of two activations may have one axis of lanes and groups.
    flat = str(weight.dtype) == _WORDS and last == found.group * target.lanes()
    return found if flat or (rank >= dot_products.AXES and last == found.group) else None


def costs(schedule: Schedule, product: Any, target: Target) -> dict[str, Any]:
    """What a multiply-add costs, as fields of a tiling's problem; see `Instruction`."""
    feeding = (schedule.get(block).name_hint for block in schedule.get_producers(product))
    widened = any(str(name).startswith(WIDEN) for name in feeding)
    instruction = instruction_of(schedule, product, target)
    if instruction is None:
        return {"widened": widened}
    names = ("parts", "spare", "unpacking", "cycles", "loads")
    return {"widened": widened, **{name: getattr(instruction, name) for name in names}}


def _reduced_axes(schedule: Schedule, block: Any) -> int:
    kinds = [int(axis.iter_type) for axis in schedule.get(block).iter_vars]
    return kinds.count(tirx.IterVar.CommReduce)
