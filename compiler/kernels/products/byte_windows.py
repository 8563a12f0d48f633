"""Products of bytes by an instruction that saturates, with operands so arranged that it cannot.

`vpmaddubsw` multiplies unsigned by signed bytes and adds up pairs in 16 bits: twice the products of
one in 32 bits, but no two of the largest fit.  Weights are known when a model is compiled, so the
bounds of a sum are too: 255 times its positive weights, and 255 times its negative ones.  While
neither adds up to more than 128, nothing saturates.

Which weights meet in a sum is free.  A window is 16 bytes of a row, which one load broadcasts, and
a byte shuffle brings each output channel these in an order of its own, which `byte_packing` finds.
Most windows have four sums of four, whose pairs are added up in 16 bits; the others eight of two.

Four products in each lane then take a multiplication, a shuffle, and half or all of a
multiplication by ones and an addition: 214 or 180 GOP/s, where pairs of 16 bits reach 160 and
`inner_product` 172 (Zen 3, one core at 3.2 GHz, loops written by hand).
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.products.byte_packing import (
    BEHIND,
    BYTES,
    COUNT,
    LANES,
    VECTORS,
    WINDOW,
    Runs,
)
from hybridc.compiler.kernels.products.contractions import Conv2d, stored
from hybridc.compiler.kernels.tensor_expressions import (
    RowForm,
    computed,
    finished,
    pad2d,
    product_of,
    reduced,
    tensor,
)
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

KIND = "byte-windows"
# The annotation of the product that tells what its rows read.
RUNS = "hybridc.runs"
# A sum of 255 * 128 for each k fits 32 bits.
_MOST_INPUTS = 2**16
# Cycles of four products in each lane for sums of four and of two, in kernels of 768 inputs; and in
# pairs of 16 bits, with what widening takes where there are 128 inputs (measured, Zen 3).
CYCLES, _BY_TWO, _OTHERWISE = 1.03, 1.24, 1.45
# Rows up to which pairs are faster: twice the bytes of weights come from memory here.  With two
# cores of 107 billion multiply-adds a second and 38.9 GB/s a million weights take 4.7 us a row and
# 51 us from memory at least, as pairs 6.2 and 26 (Zen 3).
_FEW_ROWS = 8
# Columns of the widest tile, of which the first one at least has to be whole: the loops store whole
# vectors of accumulators.
WIDEST = 2 * LANES


def possible(rows: int, inputs: int, columns: int, target: Target) -> bool:
    """Whether bytes can be multiplied so: in 256 bits, by whole tiles."""
    if target.multiplies_bytes or target.vector_bits != 256 or "avx2" not in target.features:
        return False
    whole = columns % LANES == 0 or columns >= WIDEST
    return inputs <= _MOST_INPUTS and whole and rows > _FEW_ROWS


def pays(order: Array, inputs: int) -> bool:
    """Whether the windows that `pack` found are faster than pairs of 16 bits."""
    four, every = order[:, 0].mean(), order.shape[1] - COUNT - BEHIND
    return bool((four * CYCLES + (every - four) * _BY_TWO) * WINDOW < inputs * _OTHERWISE)


def dense(
    shape: Sequence[int], packed: tuple[Array, Array], columns: int, dtype: str, out_dtype: str = ""
) -> PrimFunc:
    """`out[..., n] = sum_k x[..., k] * w[k, n]` for x of `shape`, K >= 16; exact, in int32.

    Parameters: x of uint8, and what `pack` made of the weights: a table and an order.  For tables
    that `pack` did not make the loop nest saturates as the instructions do, and no order leads out
    of a row.
    """
    form = RowForm(tuple(shape[:-1]))
    x = tensor(shape, "x", dtype)
    runs = Runs(shape[-1])
    product, params = _product(
        *(x, packed, form.axes, runs),
        lambda row, _, byte: x[*form.place(row), byte],
        2 * prod(shape) * columns,
    )
    out = computed(
        (*shape[:-1], columns),
        lambda *i: stored(product[*form.row(i[:-1]), i[-1]], out_dtype),
        name="output",
    )
    return finished([*params, out])


def conv2d(  # noqa: PLR0913, PLR0917 - shape, weights, attributes, and both types
    shape: Sequence[int],
    packed: tuple[Array, Array],
    kernel: tuple[int, int],
    outputs: int,
    conv: Conv2d,
    dtype: str,
    out_dtype: str = "",
) -> PrimFunc:
    """2-D convolution of x `[N, H, W, C]`, of one group and neighbouring columns; see `dense`."""
    batch, height, width, channels = shape
    out_h, out_w = conv.output_size((height, width), kernel)
    runs = runs_in(kernel, conv)
    top, left, bottom, right = conv.padding
    # The last window of the last pixel may reach beyond the image.
    pixels = (out_w - 1) * conv.strides[1] + -(-(runs.last + WINDOW) // channels)
    right += max(0, pixels - (left + width + right))
    x = tensor(shape, "x", dtype)
    padded = pad2d(x, (top, left, bottom, right), fill=conv.fill)

    def read(row: Sequence[Any], run: Any, byte: Any) -> Any:
        n, h, v = row
        step_h, step_v = conv.strides
        pixel = v * step_v + byte // channels
        return padded[n, h * step_h + run * runs.apart, pixel, byte % channels]

    flops = 2 * batch * out_h * out_w * outputs * kernel[0] * kernel[1] * conv.inputs
    product, (_, *weights) = _product(padded, packed, (batch, out_h, out_w), runs, read, flops)
    out = computed(
        (batch, out_h, out_w, outputs),
        lambda *index: stored(product[index], out_dtype),
        name="output",
    )
    return finished([x, *weights, out])


def runs_in(kernel: tuple[int, int], conv: Conv2d) -> Runs:
    """What a pixel reads of an image: a piece of each row of the window."""
    return Runs(kernel[1] * conv.inputs, kernel[0], conv.dilation[0], conv.strides)


def _product(  # noqa: PLR0913, PLR0917 - operands, sizes, and how to read the first one
    x: Any,
    packed: tuple[Array, Array],
    rows: Sequence[Any],
    runs: Runs,
    read: Callable[[Sequence[Any], Any, Any], Any],
    flops: int,
) -> tuple[Any, list[Any]]:
    """The product's block, and its operands; `read` takes a row, a run, and a byte of that."""
    panels, windows = packed[0].shape[:2]
    w = tensor(packed[0].shape, "table", "int8")
    order = tensor(packed[1].shape, "order", "uint16")
    sizes = {"window": windows, "group": VECTORS // 2, "half": BYTES // 2}
    axes = [reduced(extent, name) for name, extent in sizes.items()]
    window, group, half = axes

    def element(*index: Any) -> Any:
        *row, n = index
        panel = n // LANES
        given = order[panel, COUNT + window].astype("int32")
        which = tirx.min(given, runs.runs * runs.windows - 1)
        first = tirx.min(which % runs.windows * WINDOW, runs.last)

        def byte(vector: Any, place: Any) -> Any:
            pattern = w[panel, window, 0, vector, place].astype("int32")
            chosen = read(row, which // runs.windows, first + (pattern & (WINDOW - 1))).astype(
                "int32"
            )
            weight = w[panel, window, 1, vector, place].astype("int32")
            return tirx.Select(pattern < 0, tirx.const(0, "int32"), chosen) * weight

        places = [n % LANES * BYTES + half * 2 + i for i in (0, 1)]
        pairs = [byte(group * 2 + i, places[0]) + byte(group * 2 + i, places[1]) for i in (0, 1)]
        two = _saturated(pairs[0]) + _saturated(pairs[1])
        four = two.astype("int16").astype("int32")
        fits = window < order[panel, 0].astype("int64")
        return te.sum(tirx.Select(fits, four, two), axis=axes)

    attrs = {**product_of(KIND, flops), RUNS: runs.to_list()}
    product = computed((*rows, panels * LANES), element, name="product", attrs=attrs)
    return product, [x, w, order]


def _saturated(value: Any) -> Any:
    """What 16 bits hold of a sum."""
    bounds = np.iinfo(np.int16)
    return tirx.max(tirx.min(value, int(bounds.max)), int(bounds.min))
