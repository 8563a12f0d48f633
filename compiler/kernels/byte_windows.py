"""Products of bytes by an instruction that saturates, with operands so arranged that it cannot.

`vpmaddubsw` multiplies unsigned by signed bytes and adds up pairs in 16 bits: twice the products of
one in 32 bits, but no two of the largest fit.  Weights are known when a model is compiled, so the
bounds of a sum are too: 255 times its positive weights, and 255 times its negative ones.  While
neither adds up to more than 128, nothing saturates.

Which weights meet in a sum is free.  A window is 16 bytes of a row, which one load broadcasts, and
a byte shuffle brings each output channel these in an order of its own.  Its 16 weights are packed
into sums as boxes into bins: the largest first, each where the load of its sign is least.  Most
windows fit four sums of four, whose pairs are added up in 16 bits; the others eight of two.  What
still finds no place goes to one more window on the same activations.

Four products in each lane then take a multiplication, a shuffle, and half or all of a
multiplication by ones and an addition: 214 or 180 GOP/s, where pairs of 16 bits reach 160 and
`inner_product` 172 (Zen 3, one core at 3.2 GHz, loops written by hand).
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.contractions import stored
from hybridc.compiler.kernels.tensor_expressions import (
    RowForm,
    computed,
    finished,
    product_of,
    reduced,
    tensor,
)
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

KIND = "byte-windows"
# Bytes of a window; output channels of a panel, and bytes of each of its lanes; vectors of a window.
WINDOW, LANES, BYTES, VECTORS = 16, 8, 4, 4
# What stands before the order of a panel's windows: how many of them have sums of four.
COUNT = 1
# 255 times as much fits 16 bits.
_LARGEST = 128
# Bits of a pattern that choose a byte; a negative one makes it zero.
_CHOICE = WINDOW - 1
# A sum of 255 * 128 for each k fits 32 bits.
_MOST_INPUTS = 2**16
# Cycles of four products in each lane for sums of four and two, and in pairs of 16 bits.
CYCLES, _BY_TWO, _OTHERWISE = 0.97, 1.15, 1.28
# Rows up to which weights come from memory no faster than they are multiplied anyhow; here they
# take twice the bytes.
_FEW_ROWS = 16


def possible(rows: int, depth: int, columns: int, target: Target) -> bool:
    """Whether bytes can be multiplied so: in 256 bits, by whole windows and whole vectors."""
    if target.multiplies_bytes or target.vector_bits != 256 or "avx2" not in target.features:
        return False
    return WINDOW <= depth <= _MOST_INPUTS and columns % LANES == 0 and rows > _FEW_ROWS


def pays(order: Array, depth: int) -> bool:
    """Whether the windows that `pack` found are faster than pairs of 16 bits."""
    four, every = order[:, 0].mean(), order.shape[1] - COUNT
    return bool((four * CYCLES + (every - four) * _BY_TWO) * WINDOW < depth * _OTHERWISE)


def dense(
    shape: Sequence[int], packed: tuple[Array, Array], columns: int, dtype: str, out_dtype: str = ""
) -> PrimFunc:
    """`out[..., n] = sum_k x[..., k] * w[k, n]` for x of `shape`; exact, in int32.

    Parameters: x of uint8, and what `pack` made of the weights: a table and an order.  For tables
    that `pack` did not make the loop nest saturates as the instructions do, and no order leads out
    of a row.
    """
    panels, windows = packed[0].shape[:2]
    rows, depth = prod(shape[:-1]), shape[-1]
    form = RowForm(tuple(shape[:-1]))
    x = tensor(shape, "x", dtype)
    w = tensor(packed[0].shape, "table", "int8")
    order = tensor(packed[1].shape, "order", "uint16")
    window, group, half = (
        reduced(extent, name)
        for extent, name in ((windows, "window"), (VECTORS // 2, "group"), (BYTES // 2, "half"))
    )

    def element(m: Any, n: Any) -> Any:
        panel = n // LANES
        first = tirx.min(order[panel, COUNT + window].astype("int32") * WINDOW, depth - WINDOW)

        def byte(vector: Any, place: Any) -> Any:
            which = w[panel, window, 0, vector, place].astype("int32")
            chosen = x[*form.place([m]), first + (which & _CHOICE)].astype("int32")
            weight = w[panel, window, 1, vector, place].astype("int32")
            return tirx.Select(which < 0, tirx.const(0, "int32"), chosen) * weight

        places = [n % LANES * BYTES + half * 2 + i for i in (0, 1)]
        pairs = [byte(group * 2 + i, places[0]) + byte(group * 2 + i, places[1]) for i in (0, 1)]
        two = _saturated(pairs[0]) + _saturated(pairs[1])
        four = two.astype("int16").astype("int32")
        fits = window < order[panel, 0].astype("int64")
        return te.sum(tirx.Select(fits, four, two), axis=[window, group, half])

    product = computed(
        (*form.axes, panels * LANES),
        element,
        name="product",
        attrs=product_of(KIND, 2 * rows * columns * depth),
    )
    out = computed(
        (*shape[:-1], columns),
        lambda *i: stored(product[*form.row(i[:-1]), i[-1]], out_dtype),
        name="output",
    )
    return finished([x, w, order, out])


def _saturated(value: Any) -> Any:
    """What 16 bits hold of a sum."""
    bounds = np.iinfo(np.int16)
    return tirx.max(tirx.min(value, int(bounds.max)), int(bounds.min))


def pack(weight: Array) -> tuple[Array, Array]:
    """Weights `[K, N]` of int8 as windows: a table, and the order of the windows.

    The table is `[N / 8, windows, 2, 4, 32]` in int8: for each of four vectors of bytes first which
    byte of the window it takes, then the weight that multiplies it.  The order is `[N / 8, 1 +
    windows]` in uint16: how many windows have sums of four, those behind them having sums of two,
    and the sixteen bytes of a row that each reads; the last ones end where the row ends.  K is 16
    at least, N a multiple of 8.
    """
    depth, columns = weight.shape
    count = -(-depth // WINDOW)
    padded = np.zeros((count * WINDOW, columns), np.int16)
    padded[:depth] = weight
    windows = padded.reshape(count, WINDOW, columns // LANES, LANES).transpose(2, 0, 3, 1)
    # The last window begins with what the one before it has.
    windows[:, -1] = np.roll(windows[:, -1], count * WINDOW - depth, axis=-1)
    panel, place = (axis.ravel() for axis in np.indices(windows.shape[:2]))
    return _arranged(_made(windows.reshape(-1, LANES, WINDOW), panel, place), len(windows))


def _made(todo: Array, panel: Array, start: Array) -> list[tuple[Array, Array, Array, Array]]:
    """The tables of windows `[windows, lanes, 16]`, each with its panel, start and sort of sum."""
    table, left = _binned(todo, 4)
    fits = ~left.any(axis=(1, 2))
    made = [(panel[fits], start[fits], np.zeros(fits.sum(), int), table[fits])]
    todo, panel, start = todo[~fits], panel[~fits], start[~fits]
    while len(todo):
        table, todo = _binned(todo, 2)
        made.append((panel, start, np.ones(len(table), int), table))
        again = todo.any(axis=(1, 2))
        panel, start, todo = panel[again], start[again], todo[again]
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
    order = np.zeros((panels, COUNT + counts.max()), np.uint16)
    order[panel, COUNT + place] = start
    order[:, 0] = np.bincount(panel, 1 - sort, minlength=panels)
    return table, order


def _binned(windows: Array, size: int) -> tuple[Array, Array]:
    """Pack weights `[windows, lanes, 16]` into sums of a size: tables, and what found no place."""
    flat = windows.reshape(-1, WINDOW)
    each, bins = np.arange(len(flat)), WINDOW // size
    order = np.argsort(-np.abs(flat), axis=1, kind="stable")
    loads = np.zeros((2, len(flat), bins), np.int16)  # of positive and negative weights
    filled = np.zeros((len(flat), bins), np.int16)
    which, values = (np.zeros((len(flat), bins, size), np.int8) for _ in range(2))
    left = flat.copy()
    for turn in range(WINDOW):
        k = order[:, turn]
        weight = flat[each, k]
        sign = (weight < 0).astype(np.intp)
        load = loads[sign, each] + (filled == size).astype(np.int16) * (2 * _LARGEST)
        best = load.argmin(axis=1)
        total = load[each, best] + np.abs(weight)
        row = np.flatnonzero((total <= _LARGEST) & (weight != 0))
        bin_ = best[row]
        at = filled[row, bin_]
        which[row, bin_, at], values[row, bin_, at] = k[row], weight[row]
        filled[row, bin_] += 1
        loads[sign[row], row, bin_] = total[row]
        left[row, k[row]] = 0
    table = np.stack([_vectors(which, len(windows)), _vectors(values, len(windows))], axis=1)
    return table, left.reshape(windows.shape)


def _vectors(binned: Array, count: int) -> Array:
    """What sums take, `[windows * lanes, sums, size]`, as vectors of bytes `[windows, 4, 32]`.

    Sums of two are the halves of a lane in one vector, sums of four those in two neighbours.
    """
    size = binned.shape[2]
    # Windows, lanes, groups of vectors, halves of a lane, vectors of a group, bytes.
    parts = binned.reshape(count, LANES, -1, 2, size // 2, 2)
    ordered: Array = parts.transpose(0, 2, 4, 1, 3, 5).reshape(count, VECTORS, LANES * BYTES)
    return ordered
