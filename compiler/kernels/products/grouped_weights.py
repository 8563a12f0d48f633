"""The loop nest of products of few rows with weights of 8 or 4 bits, added up group by group.

Of a group the integers themselves are multiplied and added up, and the sum by the scale: a weight
costs no multiplication of its own.  An integer of 4 bits stays where it lies in its word, and what
it is multiplied by is divided by its place instead, exactly: so a weight is one `and`, one
conversion and one multiply-add.  Such an integer has no sign there; it is 8 more than the weight,
and 8 times the sum of the activations is taken off for each group; a zero point of its own, as a
model's file may have one, is taken off in the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.products.weight_only import (
    MOST_GROUPED,
    SIGNS,
    extended,
    of_rows,
    stored_weights,
)
from hybridc.compiler.kernels.tensor_expressions import (
    RowForm,
    computed,
    counted,
    product_of,
    reduced,
    tensor,
)
from hybridc.compiler.model import Array
from hybridc.compiler.quantization.group_quantization import per_element

# What marks the product, and the names of the blocks that feed it.
KIND = "grouped-weights"
PARTIAL, SCALED, STRIDED, OFFSETS, SUMS = "partial", "scaled", "strided", "offsets", "sums"
_OFFSET = 8
# Places of a group whose activations are added up side by side, where words do not say it.
_SIDE_BY_SIDE = 8
_BITS = 4
_MANTISSA, _BIAS = 23, 127  # of float32


def fits(rows: int) -> bool:
    """Whether rows are so few that what a weight costs by itself counts."""
    return rows <= MOST_GROUPED


def stored(integers: Array, bits: int) -> Array:
    """What `group_quantization.packed` made, as this loop nest reads it."""
    return integers if per_element(bits) == 1 else integers ^ np.int32(SIGNS)


def dense(  # noqa: PLR0913, PLR0917 - the product, and all that its weights are made of
    shape: Sequence[int],
    integers: Array,
    scales: Array,
    columns: int,
    bits: int,
    zeros: Array | None = None,
) -> PrimFunc:
    """`out[..., n] = sum_g scale[g, n] * sum_(k in g) x[..., k] * q[k, n]`, all in float32.

    `integers` are `stored`; all else is as `weight_only.dense` has it.
    """
    panels, groups, width = scales.shape
    form, inputs = RowForm(tuple(shape[:-1])), shape[-1]
    share = per_element(bits)
    depth = integers.shape[1] * share
    x = tensor(shape, "x", "float32")
    q, s, z = stored_weights(integers, scales, zeros)
    whole = extended(x, depth)
    partial = _partial(whole, q, form, (panels * width, groups), width)
    group = _Group(whole, form, groups, depth // groups)
    offsets = None if share == 1 else group.total(share, share - 1, OFFSETS, _OFFSET)
    sums = None if z is None else group.total(gcd(group.size, _SIDE_BY_SIDE), None, SUMS)
    g = reduced(groups, "g")

    def term(row: Sequence[Any], n: Any) -> Any:
        value = partial[*row, n, g]
        value = value if offsets is None else value - offsets[*row, g]
        place = n // width, g, n % width
        if z is not None and sums is not None:
            value = value - z[*place].astype("float32") * sums[*row, g]
        return value * s[*place].astype("float32")

    product = computed(
        (*form.axes, panels * width),
        _by_row(lambda row, n: te.sum(term(row, n), axis=g)),
        name="product",
        attrs=product_of(KIND, 2 * counted(*shape[:-1]) * columns * inputs),
    )
    return of_rows(product, form, (*shape[:-1], columns), [x, q, s, z])


def _by_row(element: Callable[..., Any], behind: int = 1) -> Any:
    """A function of the axes of rows as a list, and of so many `behind` them."""
    return lambda *index: element(index[:-behind], *index[len(index) - behind :])


def _partial(whole: Any, q: Any, form: RowForm, sizes: tuple[int, int], width: int) -> Any:
    """The sum of each group `[rows, columns, groups]` of integers times what they are to meet."""
    depth, (columns, groups) = int(whole.shape[-1]), sizes
    share, size = depth // int(q.shape[1]), depth // groups

    def given(row: Sequence[Any], k: Any) -> Any:
        value = whole[*form.place(row), k]
        return value if share == 1 else value * _by_place(k % share)

    scaled = computed((*form.axes, depth), _by_row(given), name=SCALED)
    j = reduced(size, "j")

    def sum_of(row: Sequence[Any], n: Any, g: Any) -> Any:
        integer = _integer(q, n // width, g * size + j, n % width, share)
        return te.sum(scaled[*row, g * size + j] * integer, axis=j)

    made = _by_row(sum_of, behind=2)
    return computed((*form.axes, columns, groups), made, name=PARTIAL)


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


@dataclass(frozen=True)
class _Group:
    """The activations of each group: `groups` of `size`."""

    whole: Any
    form: RowForm
    groups: int
    size: int

    def total(self, share: int, counting: int | None, name: str, factor: int = 1) -> Any:
        """Their sum times a factor, of `share` places in turn only the first `counting`.

        In two steps, of which the first adds up vectors.
        """
        form, word = self.form, reduced(self.size // share, "word")

        def strided(row: Sequence[Any], g: Any, e: Any) -> Any:
            place = g * self.size + word * share + e
            return te.sum(self.whole[*form.place(row), place], axis=word)

        parts = computed(
            (*form.axes, self.groups, share),
            _by_row(strided, behind=2),
            name=f"{name}_{STRIDED}",
        )
        e = reduced(share if counting is None else counting, "e")

        def total(row: Sequence[Any], g: Any) -> Any:
            value = parts[*row, g, e]
            value = value if factor == 1 else value * tirx.const(factor, "float32")
            return te.sum(value, axis=e)

        return computed((*form.axes, self.groups), _by_row(total), name=name)
