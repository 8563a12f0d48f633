"""Shared by the rules for matrix products with packed weights: analysis and tiling."""

from typing import Any

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.kernels.products.inner_product import LANES, ROW
from hybridc.compiler.target import Target
from hybridc.schedules.products import (
    accumulators,
    contraction,
    dot_products,
    operands,
    prefetch,
    tiling,
)
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.problem import Problem

_FLOAT32 = 4  # bytes


def match(func: PrimFunc, target: Target) -> Contraction | NotApplicable:
    """Analyse a kernel that `pack-weights` made from a matrix product or a 1x1 convolution."""
    found = contraction.find_product(func, "dense", (LANES, ROW))
    if isinstance(found, NotApplicable):
        return found
    schedule, product = found
    rows = contraction.extents(schedule, product)[0]
    store = schedule.get_consumers(product)[0]
    columns = contraction.extents(schedule, store)[-1]
    depth = operands.steps(schedule, product)
    size = depth * operands.step_bytes(schedule, product)
    lanes = operands.lanes(schedule, product)
    wide = operands.source_bytes(schedule, product) == _FLOAT32
    floats = wide and not operands.paired(schedule, product)
    problem = Problem(
        *(1, 1, rows, columns, depth, size, rows * size, lanes),
        weight_bytes=operands.weight_bytes(schedule, product),
        **accumulators.costs(schedule, product, target),
        divided=floats,
        narrow=not floats,
    )
    return Contraction(func, target, problem)


def schedule(match: Contraction, point: Point) -> Schedule:
    """Tile; weights and rows are read as they lie, but for a depth that is no whole groups."""
    schedule, product, store = contraction.opened(match, (LANES, ROW))
    feeding = schedule.get_producers(product)
    within = accumulators.divided(schedule, product, match.problem.lanes, _sums(match, point))
    tiles = contraction.tile(match, schedule, product, store, point, within=within)
    terms = [found for n in (ROW, LANES) if (found := contraction.named(schedule, n)) is not None]
    for block in terms:
        schedule.compute_at(block, tiles.task, preserve_unit_loops=True)
    for pad in feeding:
        if contraction.widens(schedule, pad):
            contraction.copy_in_task(schedule, pad, tiles)
        else:
            contraction.spread(schedule, pad)
    if terms:
        _row_terms(schedule, *terms)
    return prefetch.ahead(dot_products.implement(schedule), match.target)


def _sums(match: Contraction, point: Point) -> int:
    """Into how many each sum of a tile is divided."""
    made = tiling.canonical(match.problem, point)
    return tiling.sums(match.problem, made["rows"], made["vectors"], match.target)


def _row_terms(schedule: Schedule, term: Any, by_lane: Any) -> None:
    """Add up what is taken off a task's rows in vectors along the depth."""
    schedule.unroll(schedule.get_loops(term)[-1])
    *_, lane, step, element = schedule.get_loops(by_lane)
    schedule.reorder(step, lane, element)
    start = schedule.decompose_reduction(by_lane, step)
    schedule.vectorize(schedule.get_loops(start)[-1])
    dot_products.mark(schedule, schedule.blockize(lane), dot_products.CROSSED_WITH_ITSELF)
