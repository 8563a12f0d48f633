"""Shared by the rules for matrix products with packed weights: analysis and tiling."""

from typing import Any

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.kernels.inner_product import LANES, ROW
from hybridc.compiler.target import Target
from hybridc.schedules import _accumulators, _contraction, _dot_products, _prefetch, _tiling
from hybridc.schedules._contraction import Contraction

_FLOAT32 = 4  # bytes


def match(func: PrimFunc, target: Target) -> Contraction | NotApplicable:
    """Analyse a kernel that `pack-weights` made from a matrix product or a 1x1 convolution."""
    found = _contraction.find_product(func, "dense", (LANES, ROW))
    if isinstance(found, NotApplicable):
        return found
    schedule, product = found
    rows = _contraction.extents(schedule, product)[0]
    store = schedule.get_consumers(product)[0]
    columns = _contraction.extents(schedule, store)[-1]
    depth = _contraction.steps(schedule, product)
    size = depth * _contraction.step_bytes(schedule, product)
    lanes = _contraction.lanes(schedule, product)
    problem = _tiling.Problem(
        *(1, 1, rows, columns, depth, size, rows * size, lanes),
        weight_bytes=_contraction.weight_bytes(schedule, product),
        **_accumulators.costs(schedule, product, target),
        divided=_contraction.source_bytes(schedule, product) == _FLOAT32,
    )
    return Contraction(func, target, problem)


def schedule(match: Contraction, point: Point) -> Schedule:
    """Tile; weights and rows are read as they lie, but for a depth that is no whole groups."""
    schedule, product, store = _contraction.opened(match, (LANES, ROW))
    feeding = schedule.get_producers(product)
    within = _accumulators.divided(schedule, product, match.problem.lanes, _sums(match, point))
    tiles = _contraction.tile(match, schedule, product, store, point, within=within)
    terms = [found for n in (ROW, LANES) if (found := _contraction.named(schedule, n)) is not None]
    for block in terms:
        schedule.compute_at(block, tiles.task, preserve_unit_loops=True)
    for pad in feeding:
        if _contraction.widens(schedule, pad):
            _contraction.copy_in_task(schedule, pad, tiles)
        else:
            _contraction.spread(schedule, pad)
    if terms:
        _row_terms(schedule, *terms)
    return _prefetch.ahead(_dot_products.implement(schedule), match.target)


def _sums(match: Contraction, point: Point) -> int:
    """Into how many each sum of a tile is divided."""
    made = _tiling.canonical(match.problem, point)
    return _tiling.sums(match.problem, made["rows"], made["vectors"], match.target)


def _row_terms(schedule: Schedule, term: Any, by_lane: Any) -> None:
    """Add up what is taken off a task's rows in vectors along the depth."""
    schedule.unroll(schedule.get_loops(term)[-1])
    *_, lane, step, element = schedule.get_loops(by_lane)
    schedule.reorder(step, lane, element)
    start = schedule.decompose_reduction(by_lane, step)
    schedule.vectorize(schedule.get_loops(start)[-1])
    _dot_products.mark(schedule, schedule.blockize(lane), _dot_products.CROSSED_WITH_ITSELF)
