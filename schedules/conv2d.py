"""Direct 2-D convolution, channels last, with packed weights."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules.products import (
    accumulators,
    contraction,
    dot_products,
    image_padding,
    operands,
    prefetch,
    registers,
    shared_taps,
)
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.problem import Problem
from hybridc.schedules.products.tiled import Tiled


@dataclass(frozen=True)
class Conv2d(Tiled):
    """Schedule a direct convolution as register tiles of neighbouring pixels x channels."""

    priority: ClassVar[int] = 70

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `pack-weights` made from a convolution of any window and stride."""
        found = contraction.find_product(func, "conv2d")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        images, height, width, made = contraction.extents(schedule, product)[:4]
        store = schedule.get_consumers(product)[0]
        columns = contraction.extents(schedule, store)[-1]
        source = contraction.source_shape(schedule, product)
        pixel = source[3] * operands.source_bytes(schedule, product)
        image_row = source[2] * pixel
        groups = source[3] // contraction.extents(schedule, product)[-1]
        taps = shared_taps.shared(schedule, product, target)
        problem = Problem(
            images=images,
            height=height,
            rows=width,
            columns=columns,
            depth=operands.steps(schedule, product),
            row_stride=pixel * max(1, source[2] // width),
            lanes=operands.lanes(schedule, product),
            image_bytes=source[1] * image_row,
            halo_bytes=max(0, source[1] - height * (source[1] // height)) * image_row,
            shared=columns // groups if groups > 1 else 0,
            apart=columns // groups if groups > 1 and made > columns else 0,
            weight_bytes=operands.weight_bytes(schedule, product),
            **accumulators.costs(schedule, product, target),
            held=_held(schedule, product, target) if taps == 1 else 0,
            taps=taps,
            stride=max(1, source[2] // width),
        )
        return Contraction(func, target, problem)

    def default(self, match: Contraction, target: Target) -> Point:
        """The analytic model's choice; one image row where panels share lines of the image.

        Neighbouring panels then find them in the L1 cache: groups of 4 channels, 3x3 at 56x56,
        take 188 µs by single rows and 215 by seven (Zen 3).
        """
        point = super().default(match, target)
        problem = match.problem
        shares = problem.shared and problem.ordered and problem.height > 1
        return {**point, "chunk": 1} if shares else point

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile, and read the image without its padding where no copy is needed for more.

        A copy that is needed is made inside each task where a task has every output channel of
        its rows.  One that widens is: it would take more memory than what it is made from.
        """
        schedule, product, store = contraction.opened(match)
        feeding = schedule.get_producers(product)
        columns, depth = contraction.extents(schedule, product)[-2:]
        ordered = match.problem.ordered
        spread = (columns,) if ordered else (columns, depth)
        skipped = [p for p in feeding if image_padding.is_skippable(schedule, p, *spread)]
        tiles = contraction.tile(match, schedule, product, store, point)
        if ordered:
            shared_taps.mark(schedule, product, match.problem)
        for pad in feeding:
            if pad in skipped:
                continue
            if tiles.all_columns or contraction.widens(schedule, pad):
                contraction.copy_in_task(schedule, pad, tiles)
            else:
                contraction.spread(schedule, pad)
        if not ordered:
            schedule = prefetch.ahead(dot_products.implement(schedule), match.target)
        func = schedule.mod["main"]
        func = image_padding.skip_copy(func) if skipped else func
        return (
            contraction.new_schedule(shared_taps.ordered(func)) if ordered or skipped else schedule
        )


def _held(schedule: Schedule, product: Any, target: Target) -> int:
    """Registers for activations of float32 that are read again; narrow ones come in groups."""
    *_, taps, channels = contraction.extents(schedule, product)
    wide = operands.source_bytes(schedule, product) == 4
    return registers.held(taps * channels, target) if wide else 0
