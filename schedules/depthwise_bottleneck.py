"""A depthwise convolution joined with the 1x1 convolutions before and behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.interfaces import (
    Match,
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.kernels.convolutions import bottleneck
from hybridc.compiler.kernels.convolutions.bottleneck import Bottleneck
from hybridc.compiler.kernels.tensor_expressions import KERNEL
from hybridc.compiler.target import Target
from hybridc.schedules.products import (
    accumulators,
    contraction,
    depthwise,
    image_padding,
    operands,
    pixel_rows,
    tiling,
)
from hybridc.schedules.products.problem import Problem

_WINDOW = "depthwise-conv2d"
# What `tensor_expressions.pad2d` calls the block that it makes.
_PAD = "pad"
_CHAINS = (["dense", _WINDOW], [_WINDOW, "dense"], ["dense", _WINDOW, "dense"])


@dataclass(frozen=True)
class Stage:
    """A product and the block that stores it, behind everything elementwise."""

    product: str
    store: str


@dataclass(frozen=True)
class Chain(Match):
    """The stages in order; `window` is the place of the depthwise one."""

    stages: tuple[Stage, ...]
    window: int
    case: Bottleneck


@dataclass(frozen=True)
class DepthwiseBottleneck(ScheduleRule):
    """Schedule a depthwise convolution and its 1x1 neighbours over some image rows at a time."""

    priority: ClassVar[int] = 66

    def match(self, func: PrimFunc, target: Target) -> Chain | NotApplicable:
        """Take what `fuse-depthwise` joined."""
        schedule = contraction.new_schedule(func)
        products = {
            name: str(block.annotations[KERNEL])
            for name, block in _blocks(schedule)
            if KERNEL in block.annotations
        }
        kinds = list(products.values())
        if kinds not in _CHAINS:
            return NotApplicable(
                "it is not a chain of a depthwise convolution and 1x1 convolutions"
            )
        stages = _stages(schedule, list(products))
        window = kinds.index(_WINDOW)
        return Chain(func, target, stages, window, _case(schedule, stages, window))

    def knobs(self, match: Chain) -> Space:
        """`chunk`: image rows of a task."""
        return {"chunk": bottleneck.chunks(match.case)}

    def default(self, match: Chain, target: Target) -> Point:
        """The analytic model's choice."""
        return {"chunk": bottleneck.best_chunk(match.case, target)}

    def schedule(self, match: Chain, point: Point) -> Schedule:
        """Expand the rows of a task; then, row by row, apply the window and project."""
        schedule = _by_pixel(match)
        kept = {name for stage in match.stages for name in (stage.product, stage.store)}
        for name, _ in _blocks(schedule):
            if name not in kept:
                schedule.compute_inline(schedule.get_sblock(name))
        last = schedule.get_sblock(match.stages[-1].store)
        image, height, *_ = schedule.get_loops(last)
        outer, row = schedule.split(height, [None, point["chunk"]])
        shared = image if match.case.images > 1 else outer
        if int(schedule.get(shared).extent) > 1:
            schedule.parallel(shared)
        for place in reversed(range(len(match.stages))):
            stage = match.stages[place]
            store = schedule.get_sblock(stage.store)
            if place < len(match.stages) - 1:
                # What a window reads stays for the rows that share it; what it makes does not.
                at = row if place == match.window else outer
                schedule.compute_at(store, at, preserve_unit_loops=True)
            if place == match.window:
                _window(schedule, stage, match.target)
            else:
                _pointwise(schedule, stage, match.target, behind=place > match.window)
        return contraction.new_schedule(image_padding.skip_taps(schedule.mod["main"]))

    def estimate(self, match: Chain, point: Point) -> float:
        """The analytic model's cycles."""
        return bottleneck.joined_cycles(match.case, point["chunk"], match.target)


def _by_pixel(match: Chain) -> Schedule:
    """A schedule in which 1x1 convolutions tell image rows apart, as their neighbours do."""
    schedule = contraction.new_schedule(match.func)
    for place, stage in enumerate(match.stages):
        if place != match.window:
            shape = contraction.extents(schedule, schedule.get_sblock(stage.store))
            product = schedule.get_sblock(stage.product)
            schedule = pixel_rows.split_rows(schedule, product, shape)
    return schedule


def _window(schedule: Schedule, stage: Stage, target: Target) -> None:
    """Tile a depthwise stage as the depthwise rule does, all columns of a vector together."""
    product, store = schedule.get_sblock(stage.product), schedule.get_sblock(stage.store)
    columns = contraction.extents(schedule, store)[-1]
    lanes = depthwise.lanes(columns, target)
    width = contraction.extents(schedule, store)[-2]
    pixels = depthwise.pixels(width, target)
    vectors = depthwise.vectors(pixels, columns, lanes)
    tile = _tile(schedule, store, (pixels, vectors, lanes))
    accumulators.accumulate_at(schedule, product, tile, lanes)
    depthwise.unroll(schedule, product, columns % lanes == 0)


def _pointwise(schedule: Schedule, stage: Stage, target: Target, behind: bool) -> None:
    """Tile a 1x1 stage as the analytic model does a product of one image row.

    What stands `behind` a window takes its rows one by one, as they are made.
    """
    product, store = schedule.get_sblock(stage.product), schedule.get_sblock(stage.store)
    *_, width, columns = contraction.extents(schedule, store)
    depth = contraction.extents(schedule, product)[-1]
    lanes = operands.lanes(schedule, product)
    problem = Problem(1, 1, width, columns, depth, 4 * depth, 4 * depth * width, lanes)
    pixels, vectors = tiling.choose_tile(problem, target)
    tile = _tile(schedule, store, (pixels, vectors, lanes), row_by_row=behind)
    accumulators.accumulate_at(schedule, product, tile, lanes)


def _tile(
    schedule: Schedule, store: Any, sizes: tuple[int, int, int], row_by_row: bool = False
) -> Any:
    """Cut a stage's rows into register tiles; return the loop in which one is computed.

    `sizes` are pixels, vectors, and lanes.  A panel of columns takes all image rows, while its
    weights are near, or every row has all panels.
    """
    pixels, vectors, lanes = sizes
    row, width, column = schedule.get_loops(store)[-3:]
    tile, pixel = schedule.split(width, [None, pixels])
    panel, part, lane = schedule.split(column, [None, vectors, lanes])
    outer = [row, panel] if row_by_row else [panel, row]
    schedule.reorder(*outer, tile, pixel, part, lane)
    contraction.straighten(schedule, lane, part, pixel)
    for loop in (panel, tile):
        schedule.annotate(loop, "pragma_loop_partition_hint", 1)
    return tile


def _stages(schedule: Schedule, products: Sequence[str]) -> tuple[Stage, ...]:
    """Each product with the last block before the next stage."""
    stores: dict[str, str] = {}
    current = ""
    for name, _ in _blocks(schedule):
        if name in products:
            current = name
        elif current and not name.startswith(_PAD):
            stores[current] = name
    return tuple(Stage(product, stores[product]) for product in products)


def _case(schedule: Schedule, stages: Sequence[Stage], window: int) -> Bottleneck:
    extents = [contraction.extents(schedule, schedule.get_sblock(s.product)) for s in stages]
    shapes = [contraction.extents(schedule, schedule.get_sblock(s.store)) for s in stages]
    images, height, width, channels, *taps = extents[window]
    padded = contraction.source_shape(schedule, schedule.get_sblock(stages[window].product))
    before = shapes[0][1:3] if window else padded[1:3]
    return Bottleneck(
        images=images,
        size=(before[0], before[1]),
        output_size=(height, width),
        inputs=extents[0][-1] if window else 0,
        channels=channels,
        outputs=shapes[-1][-1] if window + 1 < len(stages) else 0,
        window=(taps[0], taps[1]),
        stride=bottleneck.stride(padded[1], taps[0], height),
        top=(padded[1] - before[0]) // 2,
    )


def _blocks(schedule: Schedule) -> list[tuple[str, Any]]:
    found = [schedule.get(block) for block in contraction.all_blocks(schedule)]
    return [(str(block.name_hint), block) for block in found]
