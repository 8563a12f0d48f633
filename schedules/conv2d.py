"""Direct 2-D convolution, channels last, with packed weights."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules import (
    _accumulators,
    _contraction,
    _dot_products,
    _padding,
    _prefetch,
    _tiling,
)
from hybridc.schedules._contraction import Contraction
from hybridc.schedules._tiled import Tiled


@dataclass(frozen=True)
class Conv2d(Tiled):
    """Schedule a direct convolution as register tiles of neighbouring pixels x channels."""

    priority: ClassVar[int] = 70

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `pack-weights` made from a convolution of any window and stride."""
        found = _contraction.find_product(func, "conv2d")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        images, height, width = _contraction.extents(schedule, product)[:3]
        store = schedule.get_consumers(product)[0]
        columns = _contraction.extents(schedule, store)[-1]
        source = _contraction.source_shape(schedule, product)
        pixel = source[3] * _contraction.source_bytes(schedule, product)
        image_row = source[2] * pixel
        groups = source[3] // _contraction.extents(schedule, product)[-1]
        problem = _tiling.Problem(
            images=images,
            height=height,
            rows=width,
            columns=columns,
            depth=_contraction.steps(schedule, product),
            row_stride=pixel * max(1, source[2] // width),
            lanes=_contraction.lanes(schedule, product),
            image_bytes=source[1] * image_row,
            halo_bytes=max(0, source[1] - height * (source[1] // height)) * image_row,
            shared=columns // groups if groups > 1 else 0,
            weight_bytes=_contraction.weight_bytes(schedule, product),
            **_accumulators.costs(schedule, product, target),
            held=_held(schedule, product, target),
        )
        return Contraction(func, target, problem)

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile, and read the image without its padding where no copy is needed for more.

        A copy that is needed is made inside each task where a task has every output channel of
        its rows.  One that widens is: it would take more memory than what it is made from.
        """
        schedule, product, store = _contraction.opened(match)
        feeding = schedule.get_producers(product)
        columns, depth = _contraction.extents(schedule, product)[-2:]
        skipped = [p for p in feeding if _padding.is_skippable(schedule, p, columns, depth)]
        tiles = _contraction.tile(match, schedule, product, store, point)
        for pad in feeding:
            if pad in skipped:
                continue
            if tiles.all_columns or _contraction.widens(schedule, pad):
                _contraction.copy_in_task(schedule, pad, tiles)
            else:
                _contraction.spread(schedule, pad)
        done = _prefetch.ahead(_dot_products.implement(schedule), match.target)
        return _contraction.new_schedule(_padding.skip_copy(done.mod["main"])) if skipped else done


def _held(schedule: Schedule, product: Any, target: Target) -> int:
    """Registers for activations of float32 that are read again; narrow ones come in groups."""
    *_, taps, channels = _contraction.extents(schedule, product)
    wide = _contraction.source_bytes(schedule, product) == 4
    return _tiling.held(taps * channels, target) if wide else 0
