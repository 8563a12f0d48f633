"""3x3 convolution of stride 1 by Winograd's minimal filtering."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import Target
from hybridc.schedules import _contraction, _tiling
from hybridc.schedules._contraction import Contraction

_STAGES = ("pad", "input_rows", "input_transform", "product", "stored", "output_rows")
_LARGEST_TILE = 8


@dataclass(frozen=True)
class WinogradConv2d(ScheduleRule):
    """Schedule transforms and products as three parallel stages, each at its own peak."""

    priority: ClassVar[int] = 75

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `pack-weights` made from a 3x3 convolution of stride 1."""
        found = _contraction.find_product(func, "winograd-conv2d")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        positions, rows, _, depth = _contraction.extents(schedule, product)
        store = schedule.get_consumers(product)[0]
        columns = _contraction.extents(schedule, store)[-1]
        size = depth * 4
        problem = _tiling.Problem(
            positions, 1, rows, columns, depth, size, rows * size, target.lanes()
        )
        return Contraction(func, target, problem)

    def knobs(self, match: Contraction) -> Space:
        """Rows and vectors of the register tile; row tiles and panels of a task."""
        return _tiling.space(match.problem, match.target)

    def default(self, match: Contraction, target: Target) -> Point:
        """The analytic model's choice for the products, which take most of the time."""
        return _tiling.default(match.problem, target)

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Transform the input, multiply at every position, transform back with the epilogue."""
        schedule = _contraction.new_schedule(match.func)
        product = _contraction.product_of(schedule)
        store = schedule.get_sblock("stored")
        lanes = match.problem.lanes
        pads = schedule.get_producers(schedule.get_sblock("input_rows"))
        _transform_output(schedule, lanes)
        _contraction.tile(match, schedule, product, store, point)
        _transform_input(schedule, lanes)
        for pad in pads:
            _contraction.spread(schedule, pad)
        return schedule


def _transform_input(schedule: Schedule, lanes: int) -> None:
    """One task for each tile: its pixels are read once, for one vector of channels at a time."""
    rows, whole = schedule.get_sblock("input_rows"), schedule.get_sblock("input_transform")
    *position, tile, channel = schedule.get_loops(whole)
    outer, lane = _contraction.split_lanes(schedule, channel, lanes)
    schedule.reorder(tile, outer, *position, lane)
    schedule.parallel(tile)
    schedule.compute_at(rows, outer, preserve_unit_loops=True)
    for block in (whole, rows):
        _straighten(schedule, block)


def _transform_output(schedule: Schedule, lanes: int) -> None:
    """One task for each tile: transform back, and apply the epilogue to the tile's pixels."""
    rows, whole = schedule.get_sblock("output_rows"), schedule.get_sblock("output_transform")
    last = _contraction.inline_epilogue(schedule, whole, _STAGES)
    *image, height, width, column = schedule.get_loops(last)
    side = _contraction.extents(schedule, whole)[0]
    tile_h, row = schedule.split(height, [None, side])
    tile_w, pixel = schedule.split(width, [None, side])
    outer, lane = _contraction.split_lanes(schedule, column, lanes)
    schedule.reorder(*image, tile_h, tile_w, outer, row, pixel, lane)
    schedule.parallel(schedule.fuse(*image, tile_h, tile_w))
    for block in (whole, rows):
        schedule.compute_at(block, outer, preserve_unit_loops=True)
    for block in (last, whole, rows):
        _straighten(schedule, block)


def _straighten(schedule: Schedule, block: Any) -> None:
    """Vectorise the channels of a transform and unroll the tile: choices become constants."""
    *_, first, second, third, lane = schedule.get_loops(block)
    schedule.vectorize(lane)
    for loop in (first, second, third):
        if int(schedule.get(loop).extent) <= _LARGEST_TILE:
            schedule.unroll(loop)
