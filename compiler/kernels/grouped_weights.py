"""The loop nest of products of few rows with weights of 8 or 4 bits, added up group by group.

Of a group the integers themselves are multiplied and added up, and the sum by the scale: a weight
costs no multiplication of its own.  An integer of 4 bits stays where it lies in its word, and what
it is multiplied by is divided by its place instead, exactly: so a weight is one `and`, one
conversion and one multiply-add.  Such an integer has no sign there; it is 8 more than the weight,
and 8 times the sum of the activations is taken off for each group.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.tensor_expressions import (
    computed,
    finished,
    flatten,
    product_of,
    reduced,
    tensor,
    unflatten,
)
from hybridc.compiler.kernels.weight_only import MOST_GROUPED, extended
from hybridc.compiler.model import Array
from hybridc.compiler.quantization.group_quantization import per_element

# What marks the product, and the names of the blocks that feed it.
KIND = "grouped-weights"
PARTIAL, SCALED, STRIDED, OFFSETS = "partial", "scaled", "strided", "offsets"
_OFFSET = 8
# Turns the sign bits of all but the last integer of a word: two's complement becomes 8 more.
_SIGNS = np.int32(0x08888888)
_BITS = 4
_MANTISSA, _BIAS = 23, 127  # of float32


def fits(rows: int) -> bool:
    """Whether rows are so few that what a weight costs by itself counts."""
    return rows <= MOST_GROUPED


def stored(integers: Array, bits: int) -> Array:
    """What `group_quantization.packed` made, as this loop nest reads it."""
    return integers if per_element(bits) == 1 else integers ^ _SIGNS


def dense(
    shape: Sequence[int], integers: Array, scales: Array, columns: int, bits: int
) -> PrimFunc:
    """`out[..., n] = sum_g scale[g, n] * sum_(k in g) x[..., k] * q[k, n]`, all in float32.

    `integers` are `stored`; all else is as `weight_only.dense` has it.
    """
    panels, groups, width = scales.shape
    rows, inputs = prod(shape[:-1]), shape[-1]
    share = per_element(bits)
    depth = integers.shape[1] * share
    size = depth // groups
    x = tensor(shape, "x", "float32")
    q = tensor(integers.shape, "weight", integers.dtype.name)
    s = tensor(scales.shape, "scale", "bfloat16")
    whole = extended(x, depth)
    partial = _partial(whole, q, shape, (panels * width, groups), width)
    offsets = None if share == 1 else _offsets(whole, shape, groups, size, share)
    g = reduced(groups, "g")

    def term(m: Any, n: Any) -> Any:
        value = partial[m, n, g]
        value = value if offsets is None else value - offsets[m, g]
        return value * s[n // width, g, n % width].astype("float32")

    product = computed(
        (rows, panels * width),
        lambda m, n: te.sum(term(m, n), axis=g),
        name="product",
        attrs=product_of(KIND, 2 * rows * columns * inputs),
    )
    out = computed(
        (*shape[:-1], columns),
        lambda *index: product[flatten(index[:-1], shape[:-1]), index[-1]],
        name="output",
    )
    return finished([x, q, s, out])


def _partial(whole: Any, q: Any, shape: Sequence[int], sizes: tuple[int, int], width: int) -> Any:
    """The sum of each group `[rows, columns, groups]` of integers times what they are to meet."""
    rows, depth, (columns, groups) = prod(shape[:-1]), int(whole.shape[-1]), sizes
    share, size = depth // int(q.shape[1]), depth // groups

    def given(m: Any, k: Any) -> Any:
        value = whole[*unflatten(m, shape[:-1]), k]
        return value if share == 1 else value * _by_place(k % share)

    scaled = computed((rows, depth), given, name=SCALED)
    j = reduced(size, "j")

    def sum_of(m: Any, n: Any, g: Any) -> Any:
        integer = _integer(q, n // width, g * size + j, n % width, share)
        return te.sum(scaled[m, g * size + j] * integer, axis=j)

    return computed((rows, columns, groups), sum_of, name=PARTIAL)


def _integer(q: Any, panel: Any, k: Any, lane: Any, share: int) -> Any:
    """An integer as float32: of 4 bits where it lies, 16 to the power of its place times itself.

    The last one of a word has its sign there, the others are 8 more than the weight.
    """
    word = q[panel, k // share, lane]
    return (word if share == 1 else word & _mask(k % share, share)).astype("float32")


def _mask(place: Any, share: int) -> Any:
    """The bits of a place; a table, since the sign is among those of the last one."""
    bits = [15 << _BITS * i for i in range(share - 1)] + [-(1 << _BITS * (share - 1))]
    found: Any = tirx.const(bits[0], "int32")
    for index, value in enumerate(bits[1:], 1):
        found = tirx.Select(place == index, tirx.const(value, "int32"), found)
    return found


def _by_place(place: Any) -> Any:
    """16 to the power of minus the place, as the bits of a float32."""
    bits = (tirx.const(_BIAS, "int64") - place * _BITS).astype("int32") << _MANTISSA
    return tirx.reinterpret("float32", bits)


def _offsets(whole: Any, shape: Sequence[int], groups: int, size: int, share: int) -> Any:
    """8 times the sum of each group's activations, those of the last places of words left out.

    In two steps, of which the first adds up vectors.
    """
    rows, word = prod(shape[:-1]), reduced(size // share, "word")
    strided = computed(
        (rows, groups, share),
        lambda m, g, e: te.sum(
            whole[*unflatten(m, shape[:-1]), g * size + word * share + e], axis=word
        ),
        name=STRIDED,
    )
    e = reduced(share - 1, "e")
    return computed(
        (rows, groups),
        lambda m, g: te.sum(strided[m, g, e] * tirx.const(_OFFSET, "float32"), axis=e),
        name=OFFSETS,
    )
