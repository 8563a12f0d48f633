"""Depthwise 2-D convolution, channels last."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules.products import (
    cache_sets,
    contraction,
    depthwise,
    tiling,
)
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.problem import Problem
from hybridc.schedules.products.tiled import Tiled

# Rows of a window that are multiplied in less time than it takes to fetch them again.
_LOW = 3


@dataclass(frozen=True)
class DepthwiseConv2d(Tiled):
    """Schedule a depthwise convolution as neighbouring pixels x channels, the window unrolled."""

    priority: ClassVar[int] = 65

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `pack-weights` made from a depthwise convolution."""
        found = contraction.find_product(func, "depthwise-conv2d")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        images, height, rows, columns, kernel_h, kernel_w = contraction.extents(schedule, product)
        source = contraction.source_shape(schedule, product)
        image_row = source[2] * source[3] * 4
        lanes, overlaps = depthwise.image_lanes(columns, target)
        problem = Problem(
            images=images,
            height=height,
            rows=rows,
            columns=columns,
            depth=kernel_h * kernel_w,
            row_stride=source[3] * 4 * max(1, source[2] // rows),
            image_bytes=source[1] * image_row,
            lanes=lanes,
            overlaps=overlaps,
            halo_bytes=max(0, source[1] - height * (source[1] // height)) * image_row,
            shared=1,
        )
        return Contraction(func, target, problem)

    def default(self, match: Contraction, target: Target) -> Point:
        """Enough pixels to hide an addition's latency, few enough for the window's inputs."""
        problem = match.problem
        itemsize = np.dtype(str(match.func.params[0].dtype)).itemsize
        rows, vectors = depthwise.tile(problem, target, itemsize)
        chunk = tiling.choose_chunk(problem, (rows, vectors), target)
        whole = problem.panels(vectors)  # as `schedule` has it
        return {"rows": rows, "vectors": vectors, "chunk": chunk, "panels": whole}

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile, keep the window's columns unrolled, and skip the taps in the padding."""
        schedule, product, store = contraction.opened(match)
        rows = _by_rows(schedule, product, match.target) or depthwise.straddles(match.problem)
        for pad in schedule.get_producers(product):
            schedule.compute_inline(pad)
        whole = self._whole(match, point)
        joined = _joins(match.problem, whole["vectors"])
        contraction.tile(match, schedule, product, store, whole, joined=joined, by_rows=rows)
        depthwise.unroll(schedule, product, depthwise.are_whole(match.problem))
        return depthwise.finished(schedule, match.problem)

    def canonical(self, match: Contraction, point: Point) -> Point:
        """A tile no larger than the image; a task has every panel."""
        return tiling.canonical(match.problem, self._whole(match, point))

    def _whole(self, match: Contraction, point: Point) -> Point:
        return depthwise.with_panels(match.problem, point)


def _by_rows(schedule: Schedule, product: Any, target: Target) -> bool:
    """Whether a small window goes through all panels of one row of outputs before the next row.

    Several threads do so whatever they read: panel by panel, 3x3 on 480 channels at 14x14 takes 19
    to 76 us from process to process, and row by row 10.5; on 576 channels in vectors of 8, 68 and
    19 (Zen 4, 2 threads).  No 3x3 was slower by rows.  One thread takes 15 us panel by panel, so
    that it is the threads who hinder each other, by what is not known.

    One thread does so where the lines that a panel reads for one row find no place in the L1
    cache.  It reads a line or two of every pixel, and where channels are a power of two those share
    few sets.  The next row then finds them in the L2 cache only if no other rows came between: 3x3
    on 512 channels at 14x14 takes 18 us instead of 23.  Of larger windows there is time enough to
    fetch them, and weights that stay are worth more: 7x7 on 96 channels at 56x56 takes 161 us panel
    by panel and 182 row by row (Zen 3).  Padding may not be inlined yet: it tells how far a window
    reaches.
    """
    _, height, _, _, window, _ = contraction.extents(schedule, product)
    _, image, width, channels = contraction.source_shape(schedule, product)
    # Between the rows of a dilated window lie others, which are read again as well.
    reach = max(window, image - (height - 1) * max(1, image // height))
    crowded = cache_sets.crowded_lines(channels * 4, reach * width, target) > 0
    return window <= _LOW and (target.threads > 1 or crowded)


def _joins(problem: Problem, vectors: int) -> bool:
    """Whether the epilogue of a tile's neighbouring vectors is that of one vector.

    LLVM cuts it into registers step by step, so that the chains of dependent instructions of a
    SiLU stand beside each other: 5 to 10 % of 3x3 and 5x5 windows with one (Zen 3, whose schedulers
    hold about two chains).  A ragged last tile would ask lane by lane which of them there are.
    """
    width = vectors * problem.lanes
    return problem.columns % width == 0 and width & (width - 1) == 0
