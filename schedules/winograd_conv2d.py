"""3x3 convolution of stride 1 by Winograd's minimal filtering."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import gcd
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
from hybridc.compiler.kernels.convolutions import winograd_cost
from hybridc.compiler.kernels.convolutions.winograd_work import Cut, Work, divisors
from hybridc.compiler.target import Target
from hybridc.schedules.products import (
    accumulators,
    contraction,
    dot_products,
    operands,
    point_figures,
    prefetch,
    tiling,
)

_STAGES = ("pixels", "input_rows", "input_transform", "product", "stored", "output_rows")
_LARGEST_TILE = 8
# Lanes of two cache lines: strides of an odd number of lines spread over all sets of a cache.
_TWO_LINES, _LINE = 32, 16
_FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class Winograd(Match):
    """A kernel, and the numbers that its tasks depend on."""

    work: Work


@dataclass(frozen=True)
class WinogradConv2d(ScheduleRule):
    """Schedule tasks of tiles that transform, multiply and transform back within the L2 cache."""

    priority: ClassVar[int] = 75

    def match(self, func: PrimFunc, target: Target) -> Winograd | NotApplicable:
        """Take kernels that `pack-weights` made from a 3x3 convolution of stride 1."""
        found = contraction.find_product(func, "winograd-conv2d")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        _, tiles, _, channels = contraction.extents(schedule, product)
        transform = schedule.get_sblock("output_transform")
        side = contraction.extents(schedule, transform)[0]
        output = schedule.get_consumers(transform)[0]
        batch, height, width, columns = contraction.extents(schedule, output)
        image = -(-height // side) * -(-width // side) if batch > 1 else tiles
        group = 4 // operands.source_bytes(schedule, product)
        work = Work(side, tiles, image, channels, columns, target.lanes(), group)
        return Winograd(func, target, replace(work, near=_near(work, target)))

    def knobs(self, match: Winograd) -> Space:
        """Rows and vectors of the register tile; tiles and column panels of a task.

        `staged` makes the input transform a parallel stage of its own.  `rows` and `panels` are
        rounded down to what divides a task's tiles and the columns.
        """
        work, registers = match.work, match.target.vector_registers
        vectors = divisors(work.vectors, 4)
        return {
            "rows": tuple(range(1, registers - 1)),
            "vectors": tuple(vectors),
            "tiles": tuple(work.groups),
            "panels": tuple(divisors(work.vectors, work.vectors)),
            "staged": (0, 1),
        }

    def default(self, match: Winograd, target: Target) -> Point:
        """The analytic model's choice."""
        chosen = winograd_cost.cut(match.work, target)
        return {knob: int(value) for knob, value in asdict(chosen).items()}

    def figures(self, match: Winograd, point: Point) -> Mapping[str, float]:
        """Those of the products at one position."""
        return point_figures.winograd(match.work, self.canonical(match, point), match.target)

    def schedule(self, match: Winograd, point: Point) -> Schedule:
        """Transform the input, multiply at every position, transform back with the epilogue."""
        schedule = contraction.new_schedule(match.func)
        for block in schedule.get_producers(schedule.get_sblock("pixels")):
            schedule.compute_inline(block)
        task, panels = _transform_output(schedule, match.work, point)
        _multiply(schedule, match, point, panels)
        _transform_input(schedule, match.work, None if point["staged"] else task)
        return prefetch.ahead(dot_products.implement(schedule), match.target)

    def canonical(self, match: Winograd, point: Point) -> Point:
        """Rows that divide a task's tiles, panels that divide the columns."""
        panels = tiling.divisor_below(match.work.vectors // point["vectors"], point["panels"])
        rows = tiling.divisor_below(point["tiles"], point["rows"])
        return {**point, "rows": rows, "panels": panels}

    def estimate(self, match: Winograd, point: Point) -> float:
        """The analytic model's cycles."""
        sizes = dict(self.canonical(match, point))
        cut = Cut(staged=bool(sizes.pop("staged")), **sizes)
        return winograd_cost.work_cycles(match.work, cut, match.target)


def _near(work: Work, target: Target) -> bool:
    """Whether weights are in a cache: for one thread, with all else that it needs, in its own.

    Integers were measured with weights from memory, or on one thread.
    """
    if target.threads == 1:
        return work.weight_bytes + work.image_bytes <= target.l2
    return target.near and work.group == 1


def _transform_output(schedule: Schedule, work: Work, point: Point) -> tuple[Any, Any]:
    """Cut the output into tasks; each transforms its tiles back and applies the epilogue.

    Returns the loop of a task, and that of the columns for which a task holds products.
    """
    rows, whole = schedule.get_sblock("output_rows"), schedule.get_sblock("output_transform")
    last = contraction.inline_epilogue(schedule, whole, _STAGES)
    *image, height, width, column = schedule.get_loops(last)
    tile_h, row = schedule.split(height, [None, work.side])
    tile_w, pixel = schedule.split(width, [None, work.side])
    # A mask in a vectorised loop would make it scalar.
    lanes = gcd(work.columns, work.lanes)
    panels = tiling.divisor_below(work.vectors // point["vectors"], point["panels"])
    held = panels * point["vectors"] * work.lanes // lanes
    chunk, group, lane = schedule.split(column, [None, held, lanes])
    schedule.reorder(*image, tile_h, tile_w, chunk, group, row, pixel, lane)
    tile = schedule.fuse(*image, tile_h, tile_w)
    task, tile = schedule.split(tile, [None, point["tiles"]])
    schedule.reorder(task, chunk, tile, group)
    if point["staged"]:
        task = chunk = schedule.fuse(task, chunk)
    _parallel(schedule, task)
    for block in (whole, rows):
        schedule.compute_at(block, group, preserve_unit_loops=True)
    for block in (whole, rows):
        _straighten(schedule, block)
    _straighten(schedule, last, outer=False)
    return task, chunk


def _multiply(schedule: Schedule, match: Winograd, point: Point, at: Any) -> None:
    """One product for each position: the weights of a panel serve all tiles of the task."""
    lanes = match.work.lanes
    store = schedule.get_sblock("stored")
    schedule.compute_at(store, at, preserve_unit_loops=True)
    schedule.storage_align(store, 0, 0, _TWO_LINES, _LINE)
    position, tile, column = schedule.get_loops(store)[-3:]
    rows = tiling.divisor_below(int(schedule.get(tile).extent), point["rows"])
    row_tile, row = schedule.split(tile, [None, rows])
    panel, part, lane = schedule.split(column, [None, point["vectors"], lanes])
    schedule.reorder(position, panel, row_tile, row, part, lane)
    contraction.straighten(schedule, lane, part, row)
    product = contraction.product_of(schedule)
    instruction = accumulators.instruction_of(schedule, product, match.target)
    accumulators.accumulate_at(schedule, product, row_tile, lanes, instruction)


def _transform_input(schedule: Schedule, work: Work, task: Any) -> None:
    """Transform a tile's pixels, one vector of channels at a time; in `task`, or ahead of all."""
    pixels, rows, whole = (
        schedule.get_sblock(name) for name in ("pixels", "input_rows", "input_transform")
    )
    if task is not None:
        schedule.compute_at(whole, task, preserve_unit_loops=True)
    _spread_sets(schedule, whole, work)
    *position, tile, channel = schedule.get_loops(whole)[-4:]
    outer, lane = contraction.split_lanes(schedule, channel, work.lanes * work.group)
    schedule.reorder(tile, outer, *position, lane)
    at = schedule.fuse(tile, outer)
    if task is None:
        _parallel(schedule, at)
    for block in (rows, pixels):
        schedule.compute_at(block, at, preserve_unit_loops=True)
    for block in (whole, rows, pixels):
        _straighten(schedule, block)


def _spread_sets(schedule: Schedule, whole: Any, work: Work) -> None:
    """Keep apart in the sets of a cache what is stored at once: a vector at each position.

    Where channels are no whole vectors, several parts of a line are stored one after the other, and
    the lines of all positions have to stay meanwhile.  20 channels at 96x96, in tasks of 48 tiles,
    take 182 us so, and 241 where positions lie 16 sets apart (Zen 4, 2 threads).  Rows of whole
    lines are kept apart as well, as products read one line of many.
    """
    odd = work.group * _TWO_LINES, work.group * _LINE
    *_, column, tile, _ = range(len(schedule.get(whole).writes[0].source.shape))
    if work.channels * work.element % (_LINE * _FLOAT32) == 0:
        schedule.storage_align(whole, 0, tile, *odd)
    schedule.storage_align(whole, 0, column, *odd)


def _parallel(schedule: Schedule, loop: Any) -> None:
    if int(schedule.get(loop).extent) > 1:
        schedule.parallel(loop)


def _straighten(schedule: Schedule, block: Any, outer: bool = True) -> None:
    """Vectorise the channels of a transform and unroll the tile: choices become constants."""
    *_, first, second, third, lane = schedule.get_loops(block)
    schedule.vectorize(lane)
    for loop in (first, second, third) if outer else (second, third):
        if int(schedule.get(loop).extent) <= _LARGEST_TILE:
            schedule.unroll(loop)
