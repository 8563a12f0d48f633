"""The innermost part of every product: a tile of accumulators that stays in registers."""

from typing import Any

from tvm import tirx

from hybridc.compiler.interfaces import Schedule
from hybridc.compiler.target import Target
from hybridc.schedules import _dot_products
from hybridc.schedules._dot_products import Instruction


def accumulate_at(
    schedule: Schedule, product: Any, at: Any, lanes: int, instruction: Instruction | None = None
) -> None:
    """Compute a product's tile in registers: depth outside, unrolled rows and vectors inside.

    The multiply-add is a vector's, or the instruction for narrow types.
    """
    schedule.compute_at(product, at, preserve_unit_loops=True)
    reduction = sum(
        int(var.iter_type) == tirx.IterVar.CommReduce for var in schedule.get(product).iter_vars
    )
    loops = schedule.get_loops(product)
    depth = loops[-reduction:]
    row, column = loops[-reduction - 2 : -reduction]
    part, lane = schedule.split(column, [None, lanes])
    inner = [row, part, lane]
    if instruction:
        depth[-1], element = schedule.split(depth[-1], [None, instruction.group])
        inner.append(element)
    schedule.reorder(*depth, *inner)
    if not instruction:
        schedule.vectorize(lane)
    init = schedule.decompose_reduction(product, depth[0])
    *_, init_row, init_part, init_lane = schedule.get_loops(init)
    for loop in (init_row, init_part, row, part):
        schedule.unroll(loop)
    if instruction:
        schedule.vectorize(init_lane)
        _dot_products.mark(schedule, lane, instruction)


def instruction_of(schedule: Schedule, product: Any, target: Target) -> Instruction | None:
    """The target's instruction for the types that a product multiplies, where it has one."""
    data, weight = (str(read.source.dtype) for read in list(schedule.get(product).reads)[:2])
    return _dot_products.instruction_for(data, weight, target)
