"""Shared by the rules for matrix products with packed weights: analysis and tiling."""

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules import _accumulators, _contraction, _dot_products, _prefetch, _tiling
from hybridc.schedules._contraction import Contraction


def match(func: PrimFunc, target: Target) -> Contraction | NotApplicable:
    """Analyse a kernel that `pack-weights` made from a matrix product or a 1x1 convolution."""
    found = _contraction.find_product(func, "dense")
    if isinstance(found, NotApplicable):
        return found
    schedule, product = found
    rows, _, _ = _contraction.extents(schedule, product)
    store = schedule.get_consumers(product)[0]
    columns = _contraction.extents(schedule, store)[-1]
    depth = _contraction.steps(schedule, product)
    size = depth * 4
    lanes = _contraction.lanes(schedule, product)
    parts = _accumulators.parts(schedule, product, target)
    problem = _tiling.Problem(
        *(1, 1, rows, columns, depth, size, rows * size, lanes),
        parts=parts,
        weight_bytes=_contraction.weight_bytes(schedule, product),
        unpacking=_accumulators.unpacking(schedule, product, target),
    )
    return Contraction(func, target, problem)


def schedule(match: Contraction, point: Point) -> Schedule:
    """Tile; weights and rows are read as they lie, but for a depth that is no whole groups."""
    schedule, product, store = _contraction.opened(match)
    feeding = schedule.get_producers(product)
    tiles = _contraction.tile(match, schedule, product, store, point)
    for pad in feeding:
        if _contraction.widens(schedule, pad):
            _contraction.copy_in_task(schedule, pad, tiles)
        else:
            _contraction.spread(schedule, pad)
    return _prefetch.ahead(_dot_products.implement(schedule), match.target)
