"""The register tile of depthwise convolutions, which two rules share."""

from math import gcd, prod
from typing import Any

from hybridc.compiler.interfaces import Point, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules.loops import vector_loops
from hybridc.schedules.products import contraction, image_padding
from hybridc.schedules.products.problem import Problem

# Taps of a window that is unrolled whole, and columns of one of which each row is: 8 pixels make
# eight multiply-adds of each.
_UNROLLED_WINDOW = 9
_UNROLLED_SIDE = 16
# Where all tiles of an image row touch its ends, each gets code of its own.
_UNROLLED_TILES = 2
# Below this many lanes a scalar tail costs less than narrow vectors throughout.
_NARROWEST = 4
# Accumulators that hide an addition's latency and leave registers to what the window reads.
_MOST_PIXELS = 8
_LINE = 64
# Vectors of channels beside which a scalar tail counts.
_FEW = 4
_FLOAT = 4  # bytes
# Cycles until the result of a multiply-add may be added to.
_LATENCY = 4


def lanes(columns: int, target: Target) -> int:
    """Lanes of a vector of channels."""
    shared = gcd(columns, target.lanes())
    return shared if shared >= _NARROWEST else target.lanes()


def overlapping_lanes(columns: int, target: Target) -> int:
    """Lanes of vectors of channels of which the last may overlap the one before it.

    Those of the least cycles: 24 channels are two vectors of 16 as well as three of 8, which take
    longer unless a core multiplies two vectors of 8 as fast as one of 16.
    """
    widest, units = target.lanes(), target.machine.fma_per_cycle
    widths = [widest >> i for i in range(3) if _NARROWEST <= widest >> i <= columns]
    if not widths:
        return widest
    return min(widths, key=lambda w: (-(-columns // w) * max(w / widest / units, 1 / 2), w))


def image_lanes(columns: int, target: Target) -> tuple[int, bool]:
    """Lanes of a 2-D window's vectors, and whether the last may overlap the one before it.

    It does where whole vectors would be a quarter of a line, or few: 3x3 on 184 channels at 28x28
    takes 279 us in vectors of 8, 396 in those of 16 that overlap; 3x3 on 511 at 14x14 264 with a
    scalar tail, 349 without (six layers, Emerald Rapids).
    """
    shared, widest = gcd(columns, target.lanes()), target.lanes()
    few = _NARROWEST <= columns < _FEW * widest
    if 2 * shared < widest and (shared >= _NARROWEST or few):
        return overlapping_lanes(columns, target), True
    return lanes(columns, target), False


def pixels(width: int, target: Target) -> int:
    """Pixels of a tile: least waste in the ragged last one; of equals, the most."""
    limit = max(1, min(_MOST_PIXELS, target.vector_registers // 4, width))
    return min(range(1, limit + 1), key=lambda r: (-(-width // r) * (r + 1), -r))


def vectors(pixels: int, columns: int, lanes: int, itemsize: int = _FLOAT) -> int:
    """Vectors of a tile: a line of the cache, as far as there are channels and accumulators.

    The tiles of one vector follow each other through the image, so that a line of which each reads
    a part is fetched again for every part.  Two vectors of 8 lanes instead of one took a 7x7 window
    on 96 channels from 65 to 90 % of the peak, 3x3 of stride 2 from 31 to 43 % (Zen 3).  Narrow
    types, of which a line holds more than registers do, gained nothing.
    """
    line = _LINE // (lanes * itemsize) if itemsize == _FLOAT else 1
    return max(1, min(_MOST_PIXELS // pixels, columns // lanes, line))


def tile(problem: Problem, target: Target, itemsize: int = _FLOAT) -> tuple[int, int]:
    """Pixels and vectors: enough to hide an addition's latency, few enough for what they read."""
    rows = pixels(problem.rows, target)
    wide = vectors(rows, problem.columns, problem.lanes, itemsize)
    waits = wide == 1 and itemsize == _FLOAT and _waits(problem, rows, target)
    chosen = 2 if waits else wide
    # A last panel that is whole computes as many vectors again as there are too many.
    groups, overlaps = problem.panels(1), problem.moved(1) > 0
    fitting = [each for each in range(1, chosen + 1) if groups % each == 0]
    return rows, fitting[-1] if overlaps else chosen


def _waits(problem: Problem, pixels: int, target: Target) -> bool:
    """Whether a tile of one vector has no more multiply-adds than are started until one is done.

    7x7 on 384 channels at 14x14 takes 34 us in tiles of 7 pixels by two vectors instead of 41, 3x3
    of stride 2 on 192 at 28x28 11.8 instead of 13.3; in those of 8 pixels, 7x7 on 96 at 56x56 82
    instead of 92, 3x3 on 32 at 112x112 35 instead of 47 (Emerald Rapids).
    """
    units, two = target.machine.fma_per_cycle, problem.columns >= 2 * problem.lanes
    fits = 2 * pixels <= target.vector_registers // 2
    return two and fits and units > 1 and pixels <= _LATENCY * units


def with_panels(problem: Problem, point: Point) -> Point:
    """The point with every panel in a task, and no panel wider than the channels are."""
    most = max(1, problem.columns // problem.lanes)
    vectors = min(point["vectors"], most) if problem.overlaps else point["vectors"]
    return {**point, "vectors": vectors, "panels": problem.panels(vectors)}


def are_whole(problem: Problem) -> bool:
    """Whether every vector of channels is whole."""
    return problem.overlaps or problem.columns % problem.lanes == 0


def straddles(problem: Problem) -> bool:
    """Whether vectors of channels straddle the lines of the cache, which panels then share.

    Panel by panel, each line is stored in parts with a row of others between them: 3x3 on 44
    channels at 28x28 takes 16.6 us so, 7.2 row by row, on 72 at 56x56 189 and 69 (Emerald Rapids).
    """
    return problem.moved(1) > 0


def finished(schedule: Schedule, problem: Problem) -> Schedule:
    """The schedule without the taps in the padding, and with a whole last panel."""
    func = image_padding.skip_taps(schedule.mod["main"])
    if problem.overlaps:
        func = func.with_body(vector_loops.straighten(func.body))
    return contraction.new_schedule(func)


def unroll(schedule: Schedule, product: Any, whole: bool) -> None:
    """Unroll a window's columns, the rows of small ones, and what few tiles an image row has.

    Only where the channels are `whole` vectors: a scalar tail would be unrolled too.
    """
    *_, tile, row, column, _, _, _ = schedule.get_loops(product)
    image_padding.mark_rows(schedule, row)
    if not whole:
        return
    sides = [int(schedule.get(loop).extent) for loop in (row, column)]
    if sides[1] <= _UNROLLED_SIDE:
        schedule.unroll(column)
        if prod(sides) <= _UNROLLED_WINDOW:
            schedule.unroll(row)
    if int(schedule.get(tile).extent) <= _UNROLLED_TILES:
        schedule.unroll(tile)
