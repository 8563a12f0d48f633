"""Scaled dot-product attention as one loop nest: no matrix of scores in memory.

A block of rows meets all keys, is exponentiated and meets all values while its scores lie in the
caches nearest to a core; the scores of the next block take their place.  T. Dao and others,
FlashAttention: Fast and Memory-Efficient Exact Attention, 2022, for the idea; the scores of a few
rows fit a CPU's cache whole, so no running maximum is needed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.tensor_expressions import computed, finished, product_of, reduced, tensor

# The block annotation that tells how many query heads share one head of keys and values.
SHARED = "hybridc.shared"
# Rows whose keys are not worth packing, and lanes that make a dot product worth its sum.
_FEW_ROWS = 4
_LEAST_LANES = 4
_HEAD = 1  # the logical axis of heads


@dataclass(frozen=True)
class Operand:
    """A tensor of rank 4 and the order of its axes: `axes[i]` holds logical axis i.

    Of the heads that the tensor holds, `heads` from `first` on are meant, all by default.  The
    logical axes are batch, head, position, feature for queries and values, and batch, head,
    feature, position for keys.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    first: int = 0
    heads: int = 0

    def extent(self, axis: int) -> int:
        """Extent of a logical axis."""
        return self.heads if self.heads and axis == _HEAD else self.shape[self.axes[axis]]

    def at(self, source: Any, *index: Any) -> Any:
        """The element of `source` at a logical index."""
        physical: list[Any] = [None] * len(index)
        for logical, (axis, i) in enumerate(zip(self.axes, index, strict=True)):
            physical[axis] = i + self.first if logical == _HEAD and self.first else i
        return source[tuple(physical)]


@dataclass(frozen=True)
class Fill:
    """What a mask of booleans fills in: `value`, where the mask is `where`."""

    value: float
    where: bool


@dataclass(frozen=True)
class Attention:
    """`softmax(scale * q k + mask) v`; `mask` is the shape of the mask, or None.

    The mask is added or, where there is a `fill`, of booleans that choose what to fill in.
    Several query heads may share one head of keys and values.  Rows whose weights are no numbers
    give zeros if `safe`, as PyTorch's attention does for rows that are masked wholly.
    """

    query: Operand
    key: Operand
    value: Operand
    scale: float
    mask: tuple[int, ...] | None
    safe: bool
    fill: Fill | None = None

    @property
    def shared(self) -> int:
        """Query heads that share one head of keys and values."""
        return self.query.extent(1) // self.key.extent(1)

    def scores_shape(self, lanes: int) -> tuple[int, ...]:
        """Batch, heads, rows, and columns rounded up to whole vectors."""
        batch, heads, rows = (self.query.extent(axis) for axis in range(3))
        return batch, heads, rows, -(-self.key.extent(3) // lanes) * lanes


def attention(form: Attention, lanes: int) -> PrimFunc:
    """The kernel: parameters q, k, v and the mask if there is one; result `[B, S, H, D]`."""
    batch, heads, rows = (form.query.extent(axis) for axis in range(3))
    columns, features, shared = form.key.extent(3), form.value.extent(3), form.shared
    q = tensor(form.query.shape, "q", "float32")
    k = tensor(form.key.shape, "k", "float32")
    v = tensor(form.value.shape, "v", "float32")
    kind = "float32" if form.fill is None else "bool"
    mask = None if form.mask is None else tensor(form.mask, "mask", kind)
    t = reduced(columns, "t")
    product = _dot_products if takes_dot_products(form, lanes) else _packed_products
    scores = product(form, q, k, lanes)
    weights, total = _softmax(form, scores, _padded_mask(form, mask, columns, lanes), lanes)
    values = computed(
        (batch, heads, rows, features),
        lambda b, h, s, e: te.sum(
            weights[b, h, s, t] * form.value.at(v, b, h // shared, t, e), axis=t
        ),
        name="values",
    )

    def normalised(b: Any, s: Any, h: Any, e: Any) -> Any:
        quotient = values[b, h, s, e] / total[b, h, s]
        if not form.safe:
            return quotient
        # The largest logit alone adds 1.  The sum is 0 or NaN where all are masked or one is NaN.
        zero = tirx.const(0, "float32")
        return tirx.Select(total[b, h, s] > zero, quotient, zero)

    out = computed((batch, rows, heads, features), normalised, name="output")
    return finished([q, k, v, *([] if mask is None else [mask]), out])


def takes_dot_products(form: Attention, lanes: int) -> bool:
    """Whether scores are dot products of vectors along the features.

    Keys that few rows meet are not worth being packed, which takes longer than to sum up lanes.
    """
    return form.query.extent(2) <= _FEW_ROWS and gcd(form.key.extent(2), lanes) >= _LEAST_LANES


def _packed_products(form: Attention, q: Any, k: Any, lanes: int) -> Any:
    """Scores with vectors of neighbouring columns; `[B, H, S, T]` in whole vectors."""
    shared = form.shared
    keys = _packed_keys(form.key, k, lanes)
    d = reduced(form.key.extent(2), "d")
    return computed(
        form.scores_shape(lanes),
        lambda b, h, s, c: te.sum(
            form.query.at(q, b, h, s, d) * keys[b, h // shared, c // lanes, d, c % lanes], axis=d
        ),
        name="scores",
        attrs=_annotations(form),
    )


def _dot_products(form: Attention, q: Any, k: Any, lanes: int) -> Any:
    """The same scores, each summed up in a vector, a quarter of it, and one number."""
    shape, shared = form.scores_shape(lanes), form.shared
    depth, columns = form.key.extent(2), form.key.extent(3)
    width = gcd(depth, lanes)
    few = max(1, width // 4)
    i, j, k_ = reduced(depth // width, "i"), reduced(width // few, "j"), reduced(few, "k")

    def term(b: Any, h: Any, s: Any, c: Any, lane: Any) -> Any:
        # What lies behind the last column is masked; it must not be read beyond the keys.
        column = c if columns % lanes == 0 else tirx.min(c, columns - 1)
        d = i * width + lane
        return form.query.at(q, b, h, s, d) * form.key.at(k, b, h // shared, d, column)

    vector = computed((*shape, width), lambda *x: te.sum(term(*x), axis=i), name="dots")
    quarter = computed(
        (*shape, few), lambda *x: te.sum(vector[*x[:-1], j * few + x[-1]], axis=j), name="dots_few"
    )
    return computed(
        shape,
        lambda *x: te.sum(quarter[*x, k_], axis=k_),
        name="scores",
        attrs=_annotations(form),
    )


def _annotations(form: Attention) -> Mapping[str, Any]:
    batch, heads, rows, depth = (form.query.extent(axis) for axis in range(4))
    flops = 2 * batch * heads * rows * form.key.extent(3) * (depth + form.value.extent(3))
    return {**product_of("attention", flops), SHARED: form.shared}


def _packed_keys(key: Operand, source: Any, lanes: int) -> Any:
    """The keys as `[B, H, T / lanes, D, lanes]`, with zeros behind the last one."""
    batch, heads, depth, columns = (key.extent(axis) for axis in range(4))

    def element(b: Any, h: Any, block: Any, d: Any, lane: Any) -> Any:
        t = block * lanes + lane
        found = key.at(source, b, h, d, t)
        if columns % lanes == 0:
            return found
        return tirx.if_then_else(t < columns, found, tirx.const(0, "float32"))

    return computed((batch, heads, -(-columns // lanes), depth, lanes), element, name="pack")


def _padded_mask(form: Attention, mask: Any, columns: int, lanes: int) -> Any:
    """The mask with whole vectors in each row, so that vectors of it can be read."""
    shape = form.mask
    if mask is None or not shape or columns % lanes == 0 or shape[-1] == 1:
        return mask

    def element(*index: Any) -> Any:
        *lead, column = index
        zero = tirx.const(0, mask.dtype)
        return tirx.if_then_else(column < columns, mask[*lead, column], zero)

    width = -(-columns // lanes) * lanes
    return computed((*shape[:-1], width), element, name="pad")


def _softmax(form: Attention, scores: Any, mask: Any, lanes: int) -> tuple[Any, Any]:
    """The rows' exponentials, and their sums; reduced in halves that stay in vectors."""
    shape, columns = form.scores_shape(lanes), form.key.extent(3)

    def masked(*index: Any) -> Any:
        scaled = scores[index] * tirx.const(form.scale, "float32")
        if mask is not None:
            extents = [int(extent) for extent in mask.shape]
            aligned = zip(index[len(index) - len(extents) :], extents, strict=True)
            met = mask[tuple(0 if extent == 1 else i for i, extent in aligned)]
            scaled = scaled + met if form.fill is None else _chosen(form.fill, met, scaled)
        if columns % lanes == 0:
            return scaled
        return tirx.Select(index[-1] < columns, scaled, tirx.const(float("-inf"), "float32"))

    logits = computed(shape, masked, name="logits")
    largest = _reduce_rows(logits, te.max, "largest", lanes)
    exponentials = computed(
        shape, lambda b, h, s, t: tirx.exp(logits[b, h, s, t] - largest[b, h, s]), name="weights"
    )
    return exponentials, _reduce_rows(exponentials, te.sum, "total", lanes)


def _chosen(fill: Fill, mask: Any, scores: Any) -> Any:
    value = tirx.const(fill.value, "float32")
    return tirx.Select(mask, value, scores) if fill.where else tirx.Select(mask, scores, value)


def _reduce_rows(source: Any, reducer: Any, name: str, lanes: int) -> Any:
    """Reduce the last axis: to one vector, to a quarter of it, to one number."""
    *lead, width = (int(extent) for extent in source.shape)
    few = max(1, lanes // 4)
    i, j, k = reduced(width // lanes, "i"), reduced(lanes // few, "j"), reduced(few, "k")
    vector = computed(
        (*lead, lanes),
        lambda *x: reducer(source[*x[:-1], i * lanes + x[-1]], axis=i),
        name=f"{name}_lanes",
    )
    quarter = computed(
        (*lead, few),
        lambda *x: reducer(vector[*x[:-1], j * few + x[-1]], axis=j),
        name=f"{name}_few",
    )
    return computed(lead, lambda *x: reducer(quarter[*x, k], axis=k), name=name)
