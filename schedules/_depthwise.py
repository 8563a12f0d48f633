"""The register tile of depthwise convolutions, which two rules share."""

from math import gcd, prod
from typing import Any

from hybridc.compiler.interfaces import Schedule
from hybridc.compiler.target import Target
from hybridc.schedules import _padding

# Taps of a window that is unrolled whole, and columns of one of which each row is: 8 pixels make
# eight multiply-adds of each.
_UNROLLED_WINDOW = 9
_UNROLLED_SIDE = 16
# Where all tiles of an image row touch its ends, each gets code of its own.
_UNROLLED_TILES = 2
# Below this many lanes a scalar tail costs less than narrow vectors throughout.
_NARROWEST = 4
# Pixels that hide an addition's latency and leave registers to what the window reads.
_MOST_PIXELS = 8


def lanes(columns: int, target: Target) -> int:
    """Lanes of a vector of channels."""
    shared = gcd(columns, target.lanes())
    return shared if shared >= _NARROWEST else target.lanes()


def pixels(width: int, target: Target) -> int:
    """Pixels of a tile: least waste in the ragged last one; of equals, the most."""
    limit = max(1, min(_MOST_PIXELS, target.vector_registers // 4, width))
    return min(range(1, limit + 1), key=lambda r: (-(-width // r) * (r + 1), -r))


def unroll(schedule: Schedule, product: Any, whole: bool) -> None:
    """Unroll a window's columns, the rows of small ones, and what few tiles an image row has.

    Only where the channels are `whole` vectors: a scalar tail would be unrolled too.
    """
    *_, tile, row, column, _, _, _ = schedule.get_loops(product)
    _padding.mark_rows(schedule, row)
    if not whole:
        return
    sides = [int(schedule.get(loop).extent) for loop in (row, column)]
    if sides[1] <= _UNROLLED_SIDE:
        schedule.unroll(column)
        if prod(sides) <= _UNROLLED_WINDOW:
            schedule.unroll(row)
    if int(schedule.get(tile).extent) <= _UNROLLED_TILES:
        schedule.unroll(tile)
