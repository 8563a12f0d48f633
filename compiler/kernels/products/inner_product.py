"""Products of bytes with half the multiplications: Winograd's inner product.

    a b + c d = (a + d) (c + b) - a c - d b

The two products that are taken off belong to a row and to a column alone, and are computed once
for each.  In integers this is exact.  S. Winograd, A New Algorithm for Inner Product, 1968.

Without an instruction for bytes, pairs of 16 bits are multiplied by `vpmaddwd` and added up by
`vpaddd`, one of each for two k.  A core that starts two multiplications and four additions a cycle
does not reach two of each: additions that wait for their product take the multipliers' ports when
it comes.  Here four k take one multiplication and three additions, which fill all ports: 182
instead of 159 GOP/s in loops written by hand (Zen 3, one core at 3.2 GHz), 161 instead of 155 as
LLVM orders them, with activations from the L2 cache.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import te

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.products.contractions import stored
from hybridc.compiler.kernels.products.packing import once_widened
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

# Marks the product; and the blocks that add up a row's products in lanes, and then these.
CROSSED = "hybridc.crossed"
LANES, ROW = "row_lanes", "row_term"
# Successive k of a multiplication: those in places 0 and 1 meet the weights of 2 and 3.
_QUAD = 4
# Sums of (255 + 128)^2 for each two k, and of what is taken off, fit 32 bits.
_MOST_INPUTS = 2**14
# A vector of results costs so many instructions more; a row that many, and one for each of so many
# k.  What is saved is that share of an instruction for each k of a vector of results.
_TAKEN_OFF, _ROW, _ROW_INPUTS, _SAVED = 2.5, 20, 4, 0.05
# Rows up to which weights come from memory no faster than they are multiplied anyhow.
_FEW_ROWS = 16


def pays(rows: int, depth: int, columns: int, target: Target) -> bool:
    """Whether a product of bytes is faster so: where pairs are multiplied, in 256 bits."""
    if target.multiplies_bytes or target.vector_bits != 256 or "avx2" not in target.features:
        return False
    if depth % (2 * _QUAD) or depth > _MOST_INPUTS or rows <= _FEW_ROWS:
        return False
    vectors = -(-columns // target.lanes())
    return _SAVED * depth > _TAKEN_OFF + (_ROW + depth / _ROW_INPUTS) / vectors


def column_terms(weight: Array) -> Array:
    """What is taken off each column of weights `[K, N]` of int8: `[N]` in int32."""
    quads = weight.astype(np.int32).reshape(-1, 2, 2, weight.shape[1])
    terms: Array = (quads[:, 0] * quads[:, 1]).sum(axis=(0, 1), dtype=np.int32)
    return terms


def dense(
    shape: Sequence[int], packed: Array, columns: int, dtype: str, out_dtype: str = ""
) -> PrimFunc:
    """`out[..., n] = sum_k x[..., k] * w[k, n]` for x of `shape`; exact, in int32.

    Parameters: x of uint8, weights that `pack_matrix` packed by pairs, their `column_terms`.  The
    last axis of x is a whole number of eights.
    """
    blocks, lanes = packed.shape[0], packed.shape[2]
    depth, rows = shape[-1], prod(shape[:-1])
    form = RowForm(tuple(shape[:-1]))
    x = tensor(shape, "x", dtype)
    w = tensor(packed.shape, "weight", packed.dtype.name)
    c = tensor((columns,), "column_term", "int32")
    wide = once_widened(x, 2)
    quad, element = reduced(depth // _QUAD, "quad"), reduced(2, "element")

    def data(row: Sequence[Any], place: Any) -> Any:
        return wide[*form.place(row), place].astype("int32")

    def weight(n: Any, pair: Any) -> Any:
        return w[n // lanes, pair, n % lanes, element].astype("int32")

    product = computed(
        (*form.axes, blocks * lanes),
        lambda m, n: te.sum(
            (data([m], quad * _QUAD + element) + weight(n, quad * 2 + 1))
            * (data([m], quad * _QUAD + 2 + element) + weight(n, quad * 2)),
            axis=[quad, element],
        ),
        name="product",
        attrs={**product_of("dense", 2 * rows * columns * depth), CROSSED: 1},
    )
    term = _row_terms(data, rows, depth)
    out = computed(
        (*shape[:-1], columns),
        lambda *i: stored(
            product[*form.row(i[:-1]), i[-1]] - (term[*form.row(i[:-1])] >> 1) - c[i[-1]], out_dtype
        ),
        name="output",
    )
    return finished([x, w, c, out])


def _row_terms(data: Any, rows: int, depth: int) -> Any:
    """Twice what is taken off each row: `[rows]`.

    An instruction multiplies a vector with its halves of quads exchanged: each product is then
    there twice, in neighbouring lanes.
    """
    lanes = 8 if depth % (4 * _QUAD) == 0 else 4
    step, element = reduced(depth // (2 * lanes), "step"), reduced(2, "element")

    def product(m: Any, lane: Any) -> Any:
        first = step * (2 * lanes) + lane // 2 * _QUAD + element
        return te.sum(data([m], first) * data([m], first + 2), axis=[step, element])

    by_lane = computed((rows, lanes), product, name=LANES)
    lane = reduced(lanes, "lane")
    return computed((rows,), lambda m: te.sum(by_lane[m, lane], axis=lane), name=ROW)
