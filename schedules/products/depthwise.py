"""The register tile of depthwise convolutions, which two rules share."""

from math import gcd, prod
from typing import Any

from hybridc.compiler.interfaces import Schedule
from hybridc.compiler.target import Target
from hybridc.schedules.products import image_padding

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


def lanes(columns: int, target: Target) -> int:
    """Lanes of a vector of channels."""
    shared = gcd(columns, target.lanes())
    return shared if shared >= _NARROWEST else target.lanes()


def pixels(width: int, target: Target) -> int:
    """Pixels of a tile: least waste in the ragged last one; of equals, the most."""
    limit = max(1, min(_MOST_PIXELS, target.vector_registers // 4, width))
    return min(range(1, limit + 1), key=lambda r: (-(-width // r) * (r + 1), -r))


def vectors(pixels: int, columns: int, lanes: int, itemsize: int = 4) -> int:
    """Vectors of a tile: a line of the cache, as far as there are channels and accumulators.

    The tiles of one vector follow each other through the image, so that a line of which each reads
    a part is fetched again for every part.  Two vectors of 8 lanes instead of one took a 7x7 window
    on 96 channels from 65 to 90 % of the peak, 3x3 of stride 2 from 31 to 43 % (Zen 3).  Narrow
    types, of which a line holds more than registers do, gained nothing.
    """
    line = _LINE // (lanes * itemsize) if itemsize == 4 else 1
    return max(1, min(_MOST_PIXELS // pixels, columns // lanes, line))


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
