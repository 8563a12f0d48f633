"""Depthwise 3-D convolution, channels last."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.kernels.convolutions import volumes
from hybridc.compiler.target import Target
from hybridc.schedules.products import contraction, depthwise, tiling
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.problem import Problem
from hybridc.schedules.products.tiled import Tiled

_FLOAT = 4  # bytes
# Slices of the result that a task writes, beside those that its window reads.
_WRITTEN = 1
# The share of the L2 cache that the slices under a window may take.
_ROOM = 0.75


@dataclass(frozen=True)
class DepthwiseConv3d(Tiled):
    """Schedule a depthwise convolution of volumes as neighbouring pixels x channels.

    A task is some rows of one slice.  The next one is the same rows of the slice behind it, of
    whose window all slices but one are in the L2 cache then.
    """

    priority: ClassVar[int] = 63

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `lift-conv3d` made from a depthwise convolution."""
        found = contraction.find_product(func, volumes.KIND)
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        batch, slices, height, rows, columns, *window = contraction.extents(schedule, product)
        _, _, image, width, _ = contraction.source_shape(schedule, product)
        lanes = depthwise.overlapping_lanes(columns, target)
        image_row = window[0] * width * columns * _FLOAT
        problem = Problem(
            images=batch * slices,
            height=height,
            rows=rows,
            columns=columns,
            depth=window[0] * window[1] * window[2],
            row_stride=columns * _FLOAT * max(1, width // rows),
            image_bytes=image * image_row,
            lanes=lanes,
            halo_bytes=max(0, image - height * (image // height)) * image_row,
            shared=1,
            overlaps=lanes <= columns,
        )
        return Contraction(func, target, problem)

    def default(self, match: Contraction, target: Target) -> Point:
        """The tile of a 2-D window; rows whose slices under the window stay in the L2 cache."""
        rows, vectors = depthwise.tile(match.problem, target)
        chunk = _chunk(match.problem, rows, target)
        return depthwise.with_panels(
            match.problem, {"rows": rows, "vectors": vectors, "chunk": chunk, "panels": 0}
        )

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile, keep the window's columns unrolled, and skip the taps in the padding."""
        schedule, product, store = contraction.opened(match)
        by_rows = depthwise.straddles(match.problem)
        for pad in schedule.get_producers(product):
            schedule.compute_inline(pad)
        chosen = depthwise.with_panels(match.problem, point)
        contraction.tile(match, schedule, product, store, chosen, by_rows=by_rows, through=True)
        depthwise.unroll(schedule, product, depthwise.are_whole(match.problem))
        return depthwise.finished(schedule, match.problem)

    def canonical(self, match: Contraction, point: Point) -> Point:
        """A tile no larger than the image; a task has every panel."""
        return tiling.canonical(match.problem, depthwise.with_panels(match.problem, point))


def _chunk(problem: Problem, tile_rows: int, target: Target) -> int:
    """The most rows of a slice, or tiles of its only one, whose window stays in the L2 cache.

    Every thread gets one.  Rows that two tasks read are fetched for each of them.
    """
    units = problem.units(tile_rows)
    written = _WRITTEN * problem.rows * problem.height * problem.columns * _FLOAT

    def fits(chunk: int) -> bool:
        share = chunk / units
        taken = (problem.image_bytes + written) * share + problem.halo_bytes
        return taken < _ROOM * target.l2 and problem.images * (units // chunk) >= target.threads

    return max((each for each in tiling.divisors(units) if fits(each)), default=1)
