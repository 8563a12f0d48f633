"""The loop nest of products with weights of 8 or 4 bits and activations rounded to 8 bits.

Each group of a row's activations has a scale of its own, its largest magnitude over 127, as ONNX
Runtime's products with `accuracy_level` 4 have it.  An instruction adds up four products of bytes,
where a multiply-add of float32 makes one, and integers are exact: all error is the rounding of
activations.

Weights have no sign: 8 or 128 is added to them.  That times the sum of a group's activations is
taken off, and what a zero point of its own adds.  A word of 32 bits holds 4 successive inputs of 8
bits, or 8 of 4 bits: the first four in the lower halves of its bytes.
"""

from collections.abc import Callable, Sequence
from math import gcd
from typing import Any

import numpy as np
from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.products.weight_only import extended, of_rows, stored_weights
from hybridc.compiler.kernels.tensor_expressions import (
    RowForm,
    computed,
    counted,
    product_of,
    reduced,
    tensor,
)
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

# What marks the product, and the names of the blocks that feed it, in their order.
KIND = "grouped-bytes"
PARTIAL, ROUNDED = "partial", "rounded"
STRIDED = ("largest_strided", "sums_strided")
TOTALS = ("largest", "sums", "steps", "taken_off")
_LEVELS = 127
# Scales below this are 0: their reciprocals are infinite, or close to.
_TINY = 1e-30
_BYTE, _QUAD = 8, 4
# Places of a group that are looked at side by side.
_SIDE_BY_SIDE = 16
_FLOAT = "float32"


def fits(size: int, bits: int, target: Target) -> bool:
    """Whether a target has an instruction for it, and a group of so many inputs is whole words.

    Without VNNI sums of two products are of 16 bits, which hold those of weights of 4 bits alone.
    """
    exact = target.multiplies_bytes or (bits < _BYTE and "avx2" in target.features)
    return exact and size % share(bits) == 0


def share(bits: int) -> int:
    """Inputs of a word of weights."""
    return _QUAD * (_BYTE // bits)


def packed(integers: Array, bits: int, width: int) -> Array:
    """Signed integers `[K, N]` as words `[panels, K / share, width]`, zeros behind the last column.

    K is a whole number of words.
    """
    rows, columns = integers.shape
    whole = np.zeros((rows, -(-columns // width) * width), np.int16)
    whole[:, :columns] = integers
    parts = (whole + 2 ** (bits - 1)).astype(np.uint32).reshape(-1, share(bits), whole.shape[1])
    words = np.zeros((parts.shape[0], parts.shape[2]), np.uint32)
    for place in range(share(bits)):
        words |= parts[:, place] << np.uint32(_shift(place))
    panels = words.reshape(len(words), -1, width).transpose(1, 0, 2)
    return np.ascontiguousarray(panels).view(np.int32)


def _shift(place: Any) -> Any:
    """Where in its word an input lies."""
    return place % _QUAD * _BYTE + place // _QUAD * (_BYTE // 2)


def dense(  # noqa: PLR0913, PLR0917 - the product, and all that its weights are made of
    shape: Sequence[int],
    integers: Array,
    scales: Array,
    columns: int,
    bits: int,
    zeros: Array | None = None,
) -> PrimFunc:
    """`out[..., n] = sum_g a[..., g] * scale[g, n] * sum_(k in g) r[..., k] * q[k, n]`.

    `integers` are `packed`; `scales`, and `zeros` that are taken off q, are `[panels, groups,
    width]`.  r are whole numbers, and r times `a` are the activations, rounded.
    """
    panels, groups, width = scales.shape
    form, inputs = RowForm(tuple(shape[:-1])), shape[-1]
    depth = integers.shape[1] * share(bits)
    x = tensor(shape, "x", _FLOAT)
    q, s, z = stored_weights(integers, scales, zeros)
    rounding = _Rounding(extended(x, depth), form, groups)
    partial = _partial(rounding.rounded, q, form, (groups, panels * width), bits)
    offset = tirx.const(2 ** (bits - 1), _FLOAT)
    off = computed(
        (*form.axes, groups),
        lambda *i: rounding.sums[i].astype(_FLOAT) * offset * rounding.steps[i],
        name=TOTALS[3],
    )
    g = reduced(groups, "g")

    def term(row: Sequence[Any], n: Any) -> Any:
        place = n // width, g, n % width
        value = partial[*row, g, n].astype(_FLOAT) * rounding.steps[*row, g] - off[*row, g]
        if z is not None:
            taken = rounding.sums[*row, g].astype(_FLOAT) * rounding.steps[*row, g]
            value = value - z[*place].astype(_FLOAT) * taken
        return value * s[*place].astype(_FLOAT)

    product = computed(
        (*form.axes, panels * width),
        lambda *i: te.sum(term(i[:-1], i[-1]), axis=g),
        name="product",
        attrs=product_of(KIND, 2 * counted(*shape[:-1]) * columns * inputs),
    )
    return of_rows(product, form, (*shape[:-1], columns), [x, q, s, z])


def _partial(rounded: Any, q: Any, form: RowForm, sizes: tuple[int, int], bits: int) -> Any:
    """The sum of each group `[rows, groups, columns]` of whole numbers times integers."""
    (groups, columns), width = sizes, int(q.shape[2])
    size, step = int(rounded.shape[-1]) // groups, share(bits)
    j = reduced(size, "j")

    def sum_of(*index: Any) -> Any:
        *row, g, n = index
        k = g * size + j
        shift = _shift(j % step).astype("int32")
        integer = q[n // width, k // step, n % width] >> shift & (2**bits - 1)
        return te.sum(rounded[*row, k].astype("int32") * integer, axis=j)

    return computed((*form.axes, groups, columns), sum_of, name=PARTIAL)


class _Rounding:
    """Activations as whole numbers, the step of each group, and the sum of its numbers."""

    def __init__(self, whole: Any, form: RowForm, groups: int) -> None:
        depth = int(whole.shape[-1])
        self._form, self._groups, self._size = form, groups, depth // groups

        def place(row: Sequence[Any], k: Any) -> Any:
            return whole[*form.place(row), k]

        largest = self._over(lambda row, k: te.abs(place(row, k)), te.max, TOTALS[0], STRIDED[0])
        self.steps = computed(
            (*form.axes, groups),
            lambda *i: largest[i] * tirx.const(1 / _LEVELS, _FLOAT),
            name=TOTALS[2],
        )

        def rounded(*index: Any) -> Any:
            *row, k = index
            most = largest[*row, k // self._size]
            inverse = tirx.Select(most < _TINY, tirx.const(0.0, _FLOAT), _LEVELS / most)
            return tirx.nearbyint(place(row, k) * inverse).astype("int32").astype("int8")

        self.rounded = computed((*form.axes, depth), rounded, name=ROUNDED)

        def number(row: Sequence[Any], k: Any) -> Any:
            return self.rounded[*row, k].astype("int32")

        self.sums = self._over(number, te.sum, TOTALS[1], STRIDED[1])

    def _over(
        self, element: Callable[..., Any], reducer: Callable[..., Any], name: str, strided: str
    ) -> Any:
        """What a reducer makes of each group, in two steps, of which the first takes vectors."""
        side = gcd(self._size, _SIDE_BY_SIDE)
        word, lane = reduced(self._size // side, "word"), reduced(side, "lane")

        def first(*index: Any) -> Any:
            *row, g, e = index
            return reducer(element(row, g * self._size + word * side + e), axis=word)

        parts = computed((*self._form.axes, self._groups, side), first, name=strided)
        return computed(
            (*self._form.axes, self._groups),
            lambda *index: reducer(parts[*index, lane], axis=lane),
            name=name,
        )
