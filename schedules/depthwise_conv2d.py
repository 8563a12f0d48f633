"""Depthwise 2-D convolution, channels last."""

from dataclasses import dataclass
from math import gcd
from typing import ClassVar

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
        """Few pixels, so that the window's weights stay in registers beside them."""
        problem = match.problem
        limit = max(1, min(8, target.vector_registers // 4, problem.rows))
        # Least waste in the ragged last tile; of equals, the widest.
        rows = min(range(1, limit + 1), key=lambda r: (-(-problem.rows // r) * (r + 1), -r))
        chunk, panels = _tiling.choose_task(problem, (rows, 1), target)
        return {"rows": rows, "vectors": 1, "chunk": chunk, "panels": panels}

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile, unroll the window, and pad inside each task."""
        schedule = _contraction.new_schedule(match.func)
        product = _contraction.product_of(schedule)
        store = _contraction.inline_epilogue(schedule, product)
        feeding = schedule.get_producers(product)
        whole = {**point, "panels": match.problem.panels(point["vectors"])}
        tiles = _contraction.tile(match, schedule, product, store, whole)
        if match.problem.columns % match.problem.lanes == 0:  # else the tail would be unrolled too
            _contraction.unroll_window(schedule, product)
        for pad in feeding:
            schedule.compute_at(pad, tiles.task)
            _contraction.vectorize_copy(schedule, schedule.get_loops(pad)[-1])
        return schedule
