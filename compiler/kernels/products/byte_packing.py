"""How weights of bytes are packed so that sums of their products fit 16 bits.

A window is 16 bytes of activations, whose 16 weights for an output channel are packed into sums as
boxes into bins: the largest first, each where the load of its sign is least.  Most windows fit four
sums of four, the others eight of two; what still finds no place goes to one more window on the same
activations.  `byte_windows` tells what that is for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridc.compiler.model import Array

# Bytes of a window; output channels of a panel, and bytes of each one's lane; vectors of a window.
WINDOW, LANES, BYTES, VECTORS = 16, 8, 4, 4
# What stands before the order of a panel's windows: how many of them have sums of four.
COUNT = 1
# And behind it: one window's start is looked up while the one before it is multiplied.
BEHIND = 1
# 255 times as much fits 16 bits.
_LARGEST = 128
# Ways to pack with care: the emptiest or the fullest sum first, sizes changed by noise of a share.
# Of bell-shaped weights of deviation 38, 3 % of the lanes do not fit the first way, 1.3 % any way.
_ATTEMPTS, _NOISE = 7, 0.2
# Bits of a weight's place in its window.
_BITS = 4
# Steps of a weight by which urgencies differ.
_STEPS = 16
# Sums at most, and a load that leaves no room, in the form in which loads are compared.
_NAMES, _FULL = np.int16(8), np.int16(2**12)
# Windows that are packed at a time: what is known of them stays in a cache.
_TOGETHER = 2**13


@dataclass(frozen=True)
class Runs:
    """What a row of the product reads: `runs` pieces of `size` bytes, one image row after another.

    The pieces lie `apart` image rows apart, those of neighbouring results `steps` image rows and
    pixels.  A matrix product has one piece.
    """

    size: int
    runs: int = 1
    apart: int = 1
    steps: tuple[int, int] = (1, 1)

    @property
    def windows(self) -> int:
        """Windows that cover a piece; the last one ends where it ends, if it is that long."""
        return -(-self.size // WINDOW)

    @property
    def last(self) -> int:
        """Where the last window of a piece begins."""
        return max(0, self.size - WINDOW)

    def starts(self, image_row: int) -> list[int]:
        """The first byte of each window, with so many bytes in an image row."""
        firsts = [min(i * WINDOW, self.last) for i in range(self.windows)]
        return [
            run * self.apart * image_row + first for run in range(self.runs) for first in firsts
        ]

    def to_list(self) -> list[int]:
        """The numbers in their order."""
        return [self.size, self.runs, self.apart, *self.steps]


def runs_of(numbers: Sequence[Any]) -> Runs:
    """Read what `to_list` wrote."""
    size, runs, apart, *steps = (int(number) for number in numbers)
    return Runs(size, runs, apart, (steps[0], steps[1]))


def pack(weight: Array) -> tuple[Array, Array]:
    """Weights `[runs, size, N]` of int8 as windows: a table, and the order of the windows.

    The table is `[N / 8, windows, 2, 4, 32]` in int8: for each of four vectors of bytes first which
    byte of the window it takes, then the weight that multiplies it.  The order is `[N / 8, 1 +
    windows + 1]` in uint16: how many windows have sums of four, those behind them having sums of
    two, which window of a row each is, and a zero.  N is a multiple of 8.
    """
    pieces, size, columns = weight.shape
    runs = Runs(size, pieces)
    padded = np.zeros((pieces, runs.windows * WINDOW, columns), np.int16)
    padded[:, :size] = weight
    windows = padded.reshape(pieces, runs.windows, WINDOW, columns)
    if size > WINDOW:  # the last window begins with what the one before it has
        windows[:, -1] = np.roll(windows[:, -1], runs.windows * WINDOW - size, axis=1)
    panels = columns // LANES
    # Lanes come last: whatever is done to all of them runs along memory.
    lanes = windows.reshape(-1, WINDOW, panels, LANES).transpose(1, 2, 0, 3)
    panel, place = (axis.ravel() for axis in np.indices(lanes.shape[1:3]))
    todo = lanes.reshape(WINDOW, -1, LANES)
    parts = [slice(first, first + _TOGETHER) for first in range(0, len(panel), _TOGETHER)]
    made = [_made(todo[:, part], panel[part], place[part]) for part in parts]
    return _arranged([each for some in made for each in some], panels)


def _made(todo: Array, panel: Array, start: Array) -> list[tuple[Array, Array, Array, Array]]:
    """The tables of windows `[16, windows, lanes]`, each with its panel, start and sort of sum."""
    table, left = _binned(todo, 4)
    fits = ~left.any(axis=(0, 2))
    made = [(panel[fits], start[fits], np.zeros(fits.sum(), int), table[fits])]
    todo, panel, start = todo[:, ~fits], panel[~fits], start[~fits]
    while len(panel):
        table, todo = _binned(todo, 2)
        made.append((panel, start, np.ones(len(table), int), table))
        again = todo.any(axis=(0, 2))
        panel, start, todo = panel[again], start[again], todo[:, again]
    return made


def _arranged(
    made: Sequence[tuple[Array, Array, Array, Array]], panels: int
) -> tuple[Array, Array]:
    """Every panel's windows behind each other, as many for each; those too many multiply by 0."""
    panel, start, sort, tables = (np.concatenate(parts) for parts in zip(*made, strict=True))
    sequence = np.lexsort((start, sort, panel))
    panel, start, sort = panel[sequence], start[sequence], sort[sequence]
    counts = np.bincount(panel, minlength=panels)
    place = np.arange(len(sequence)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.zeros((panels, counts.max(), *tables.shape[1:]), np.int8)
    table[panel, place] = tables[sequence]
    order = np.zeros((panels, COUNT + counts.max() + BEHIND), np.uint16)
    order[panel, COUNT + place] = start
    order[:, 0] = np.bincount(panel, 1 - sort, minlength=panels)
    return table, order


def _binned(windows: Array, size: int) -> tuple[Array, Array]:
    """Pack weights `[16, windows, lanes]` into sums of a size: tables, and what found no place.

    Lanes that do not fit as they are dealt are packed with care, in one order after another.
    """
    flat = np.ascontiguousarray(windows).reshape(WINDOW, -1)
    which, values, fits = _dealt(flat, size)
    careful = np.flatnonzero(~fits)
    left = np.zeros_like(flat)
    left[:, careful] = hard = flat[:, careful]
    draw = np.random.default_rng(0)
    positive, total = np.maximum(hard, 0).sum(axis=0), np.abs(hard).sum(axis=0)
    possible = np.maximum(positive, total - positive) <= WINDOW // size * _LARGEST
    lost = np.ones(len(careful), bool)
    for attempt in range(_ATTEMPTS):
        tried = np.flatnonzero(lost & (possible | (attempt == 0)))
        some = hard[:, tried]
        noise = _NOISE * draw.standard_normal(some.T.shape).T if attempt > 1 else 0.0
        found = _filled(some, size, np.abs(some) * (1.0 + noise), fullest=attempt % 2 == 1)
        lost[tried] = found[2].any(axis=0)
        good = ~lost[tried] | (attempt == 0)
        for kept, new in zip((which, values, left), found, strict=True):
            kept[:, careful[tried[good]]] = new[:, good]
    table = np.stack([_vectors(each, size) for each in (which, values)], axis=1)
    return table, left.reshape(windows.shape)


def _dealt(flat: Array, size: int) -> tuple[Array, Array, Array]:
    """Deal weights `[16, lanes]` to sums, the largest first, from left to right and back again.

    Returns for each sum which weights it takes and their values, `[sums * size, lanes]`, and which
    lanes fit so: most do.
    """
    bins = WINDOW // size
    turns = np.arange(WINDOW).reshape(size, bins)
    turns[1::2] = turns[1::2, ::-1]
    numbers = np.arange(WINDOW, dtype=np.int16)[:, np.newaxis]
    keys: Array = _sorted(flat * np.int16(-WINDOW) + numbers)[turns.T.ravel()]
    values = -(keys >> _BITS)
    sums = (bins, size, flat.shape[1])
    highest = np.maximum(values, 0).reshape(sums).sum(axis=1, dtype=np.int16).max(axis=0)
    lowest = np.minimum(values, 0).reshape(sums).sum(axis=1, dtype=np.int16).min(axis=0)
    which = (keys & (WINDOW - 1)).astype(np.int8)
    return which, values.astype(np.int8), (highest <= _LARGEST) & (lowest >= -_LARGEST)


def _filled(flat: Array, size: int, urgency: Array, *, fullest: bool) -> tuple[Array, Array, Array]:
    """Put the most urgent weights of `[16, lanes]` first, each into a sum with room for it.

    Of these the `fullest`, or the emptiest.  Returns for each sum which weights it takes and their
    values, `[sums * size, lanes]`, and what found no place.
    """
    numbers = np.arange(WINDOW, dtype=np.int32)[:, np.newaxis]
    order = _sorted((urgency * _STEPS).astype(np.int32) * -WINDOW + numbers) & (WINDOW - 1)
    sorted_ = np.take_along_axis(flat, order, axis=0)
    slots = _slots(sorted_, size, fullest=fullest)
    lost = slots < 0
    # One slot more than there are takes what found no place.
    places = np.where(lost, WINDOW, slots)
    which, values = (np.zeros((WINDOW + 1, flat.shape[1]), np.int8) for _ in range(2))
    np.put_along_axis(which, places, order.astype(np.int8), axis=0)
    np.put_along_axis(values, places, sorted_.astype(np.int8), axis=0)
    left = np.zeros_like(flat)
    np.put_along_axis(left, order, np.where(lost, sorted_, 0), axis=0)
    return which[:WINDOW], values[:WINDOW], left


def _slots(weights: Array, size: int, *, fullest: bool) -> Array:
    """The slot in all sums that each weight `[16, lanes]` gets, in turn; -1 where there is none.

    Zeros need no place, and get none.
    """
    bins = WINDOW // size
    numbers = np.arange(bins, dtype=np.int16)[:, np.newaxis]
    # Loads of positive and negative weights, each with its sum's number in the lowest bits, so that
    # the least, or the greatest, names its sum; of equals the first.
    names = numbers[::-1] if fullest else numbers
    loads = np.tile(names, (2, 1, weights.shape[1]))
    filled = np.zeros((bins, weights.shape[1]), np.int16)
    slots = np.empty(weights.shape, np.int16)
    for turn, weight in enumerate(weights):
        much, negative = np.abs(weight), weight < 0
        load = np.where(negative, loads[1], loads[0])
        most = (_LARGEST - much) * _NAMES + (bins - 1)
        best = np.where(load <= most, load, -1).max(axis=0) if fullest else load.min(axis=0)
        fits = (best >= 0) & (best <= most) & (weight != 0)
        chosen = (load == best) & fits
        slots[turn] = (chosen * (1 + filled + size * numbers)).max(axis=0) - 1
        filled += chosen
        added = chosen * (much * _NAMES)
        loads[0] += np.where(negative, 0, added)
        loads[1] += np.where(negative, added, 0)
        loads |= (filled == size) * _FULL
    return slots


def _vectors(binned: Array, size: int) -> Array:
    """What sums of a size take, `[16, windows * lanes]`, as vectors of bytes `[windows, 4, 32]`.

    Sums of two are the halves of a lane in one vector, sums of four those in two neighbours.
    """
    # Groups of vectors, halves of a lane, vectors of a group, bytes.
    parts = binned.view(np.uint8).reshape(-1, 2, size // 2, 2, binned.shape[1]).astype(np.uint32)
    lanes = parts[:, 0, :, 0] | parts[:, 0, :, 1] << 8 | parts[:, 1, :, 0] << 16
    lanes |= parts[:, 1, :, 1] << 24
    windows = lanes.reshape(VECTORS, -1, LANES).transpose(1, 0, 2).astype("<u4", order="C")
    ordered: Array = windows.view(np.int8).reshape(-1, VECTORS, LANES * BYTES)
    return ordered


def _sorted(keys: Array) -> Array:
    """Keys `[16, lanes]` in rising order, lane by lane.

    Batcher's network of comparisons (1968; Knuth 5.2.2 M): rows of many lanes are compared at
    once, which takes a twentieth of the time of as many sorts of 16.
    """
    for low, high in _comparisons():
        smaller = np.minimum(keys[low], keys[high])
        np.maximum(keys[low], keys[high], out=keys[high])
        keys[low] = smaller
    return keys


def _comparisons() -> Iterator[tuple[int, int]]:
    """The pairs of places that the network compares, in turn."""
    size = 1
    while size < WINDOW:
        apart = size
        while apart:
            for start in range(apart % size, WINDOW - apart, 2 * apart):
                for low in range(start, min(start + apart, WINDOW - apart)):
                    if low // (2 * size) == (low + apart) // (2 * size):
                        yield low, low + apart
            apart //= 2
        size *= 2
