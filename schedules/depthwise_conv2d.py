"""Depthwise 2-D convolution, channels last."""

from dataclasses import dataclass
from math import gcd, prod
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
from hybridc.schedules import _contraction, _padding, _tiling
from hybridc.schedules._contraction import Contraction

# Taps of a window that is unrolled whole, and columns of one of which each row is: 8 pixels make
# eight multiply-adds of each.
_UNROLLED_WINDOW = 9
_UNROLLED_SIDE = 16
# Where all tiles of an image row touch its ends, each gets code of its own.
_UNROLLED_TILES = 2
# Below this many lanes a scalar tail costs less than narrow vectors throughout.
_NARROWEST = 4


@dataclass(frozen=True)
class DepthwiseConv2d(ScheduleRule):
    """Schedule a depthwise convolution as neighbouring pixels x channels, the window unrolled."""

    priority: ClassVar[int] = 65

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `pack-weights` made from a depthwise convolution."""
        found = _contraction.find_product(func, "depthwise-conv2d")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        images, height, rows, columns, kernel_h, kernel_w = _contraction.extents(schedule, product)
        source = _contraction.source_shape(schedule, product)
        lanes = gcd(columns, target.lanes())
        image_row = source[2] * source[3] * 4
        problem = _tiling.Problem(
            images=images,
            height=height,
            rows=rows,
            columns=columns,
            depth=kernel_h * kernel_w,
            row_stride=source[3] * 4 * max(1, source[2] // rows),
            image_bytes=source[1] * image_row,
            lanes=lanes if lanes >= _NARROWEST else target.lanes(),
            halo_bytes=max(0, source[1] - height * (source[1] // height)) * image_row,
        )
        return Contraction(func, target, problem)

    def knobs(self, match: Contraction) -> Space:
        """Pixels and vectors of the register tile; image rows and panels of a task."""
        return _tiling.space(match.problem, match.target)

    def default(self, match: Contraction, target: Target) -> Point:
        """Enough pixels to hide an addition's latency, few enough for the window's inputs."""
        problem = match.problem
        limit = max(1, min(8, target.vector_registers // 4, problem.rows))
        # Least waste in the ragged last tile; of equals, the widest.
        rows = min(range(1, limit + 1), key=lambda r: (-(-problem.rows // r) * (r + 1), -r))
        chunk, panels = _tiling.choose_task(problem, (rows, 1), target)
        return {"rows": rows, "vectors": 1, "chunk": chunk, "panels": panels}

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile, keep the window's columns unrolled, and skip the taps in the padding."""
        schedule = _contraction.new_schedule(match.func)
        product = _contraction.product_of(schedule)
        store = _contraction.inline_epilogue(schedule, product)
        for pad in schedule.get_producers(product):
            schedule.compute_inline(pad)
        whole = {**point, "panels": match.problem.panels(point["vectors"])}
        _contraction.tile(match, schedule, product, store, whole)
        _unroll(schedule, product, match.problem)
        return _contraction.new_schedule(_padding.skip_taps(schedule.mod["main"]))


def _unroll(schedule: Schedule, product: Any, problem: _tiling.Problem) -> None:
    """Unroll the window's columns, the rows of small ones, and what few tiles a row has."""
    *_, tile, window_row, window_column, _, _, _ = schedule.get_loops(product)
    _padding.mark_rows(schedule, window_row)
    if problem.columns % problem.lanes:  # the scalar tail would be unrolled too
        return
    sides = [int(schedule.get(loop).extent) for loop in (window_row, window_column)]
    if sides[1] <= _UNROLLED_SIDE:
        schedule.unroll(window_column)
        if prod(sides) <= _UNROLLED_WINDOW:
            schedule.unroll(window_row)
    if int(schedule.get(tile).extent) <= _UNROLLED_TILES:
        schedule.unroll(tile)
