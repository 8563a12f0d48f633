"""Scaled dot-product attention as one loop nest: no matrix of scores in memory.

A block of rows meets all keys, is exponentiated and meets all values while its scores lie in the
caches nearest to a core; the scores of the next block take their place.  T. Dao and others,
FlashAttention: Fast and Memory-Efficient Exact Attention, 2022, for the idea; the scores of a few
rows fit a CPU's cache whole, so no running maximum is needed here.
"""

from collections.abc import Mapping
from math import gcd
from typing import Any

from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.attention.attention_form import Attention, Fill, with_form
from hybridc.compiler.kernels.products.batch_matmul import pack_columns
from hybridc.compiler.kernels.products.packing import group_of, packed_index, round_up
from hybridc.compiler.kernels.tensor_expressions import (
    computed,
    extents,
    finished,
    product_of,
    reduced,
    tensor,
)

# Block annotations: the query heads that share one head of keys and values; for causal attention,
# the columns that the first row meets.
SHARED = "hybridc.shared"
CAUSAL = "hybridc.causal"
# Another: columns, depth of the scores and features, before anything is rounded up.
EXTENTS = "hybridc.extents"
# Rows whose keys are not worth packing, and lanes that make a dot product worth its sum.
_FEW_ROWS = 4
_LEAST_LANES = 4
_WIDE = "float32"
_FEATURES, _LAST = 3, 3


def attention(form: Attention, lanes: int) -> PrimFunc:
    """The kernel: parameters q, k, v and the mask if there is one; result `[B, S, H, D]`."""
    batch, heads, rows = (form.query.extent(axis) for axis in range(3))
    columns, features = form.key.extent(3), form.value.extent(3)
    q = tensor(form.query.shape, "q", form.dtype)
    k = tensor(form.key.shape, "k", form.dtype)
    v = tensor(form.value.shape, "v", form.dtype)
    kind = _WIDE if form.fill is None else "bool"
    mask = None if form.mask is None else tensor(form.mask, "mask", kind)
    product = _dot_products if takes_dot_products(form, lanes) else _packed_products
    scores = product(form, q, k, lanes)
    weights, total = _softmax(form, scores, _padded_mask(form, mask, columns, lanes), lanes)
    values = _values(form, weights, v, lanes)

    def normalised(b: Any, s: Any, h: Any, e: Any) -> Any:
        quotient = values[b, h, s, e] / total[b, h, s]
        if not form.safe:
            return quotient
        # The largest logit alone adds 1.  The sum is 0 or NaN if all are masked or one is NaN.
        zero = tirx.const(0, _WIDE)
        return tirx.Select(total[b, h, s] > zero, quotient, zero)

    out = computed((batch, rows, heads, features), normalised, name="output")
    func = finished([q, k, v, *([] if mask is None else [mask]), out])
    return with_form(func, form)


def takes_dot_products(form: Attention, lanes: int) -> bool:
    """Whether scores are dot products of vectors along the features.

    Keys that few rows meet are not worth being packed, which takes longer than to sum up lanes.
    """
    return form.query.extent(2) <= _FEW_ROWS and gcd(form.key.extent(2), lanes) >= _LEAST_LANES


def packs_values(form: Attention, lanes: int) -> bool:
    """Whether values are packed: in pairs always, else where whole vectors want zeros behind them.

    Read where they lie they cost 2 to 4 % less than packed.
    """
    few = takes_dot_products(form, lanes) or 2 * gcd(form.value.extent(3), lanes) >= lanes
    return group_of(form.dtype) > 1 or not few


def _values(form: Attention, weights: Any, v: Any, lanes: int) -> Any:
    """The weighted values; those that are packed in whole vectors."""
    batch, heads, rows, columns = (
        *(form.query.extent(axis) for axis in range(3)),
        form.key.extent(3),
    )
    features, shared = form.value.extent(3), form.shared
    group = group_of(form.dtype)
    t = reduced(round_up(columns, group), "t")
    if not packs_values(form, lanes):
        return computed(
            (batch, heads, rows, features),
            lambda b, h, s, e: te.sum(
                weights[b, h, s, t] * form.value.at(v, b, h // shared, t, e), axis=t
            ),
            name="values",
        )
    packed = pack_columns(
        v,
        (batch, heads // shared, columns, features),
        lanes,
        lambda b, h, row, e: form.value.at(v, b, h, row, e),
        name="pack_values",
    )
    return computed(
        (batch, heads, rows, round_up(features, lanes)),
        lambda b, h, s, e: te.sum(
            weights[b, h, s, t].astype(_WIDE)
            * packed[packed_index((b, h // shared, e // lanes), t, e % lanes, group)].astype(_WIDE),
            axis=t,
        ),
        name="values",
    )


def _packed_products(form: Attention, q: Any, k: Any, lanes: int) -> Any:
    """Scores with vectors of neighbouring columns; `[B, H, S, T]` in whole vectors."""
    shared, depth = form.shared, form.key.extent(2)
    keys = _packed_keys(form, k, lanes)
    queries = _whole_queries(form, q)
    group = group_of(form.dtype)
    d = reduced(round_up(depth, group), "d")
    return computed(
        form.scores_shape(lanes),
        lambda b, h, s, c: te.sum(
            queries(b, h, s, d).astype(_WIDE)
            * keys[packed_index((b, h // shared, c // lanes), d, c % lanes, group)].astype(_WIDE),
            axis=d,
        ),
        name="scores",
        attrs=_annotations(form),
    )


def _whole_queries(form: Attention, q: Any) -> Any:
    """The queries by logical index, a group of features without gaps and zeros behind the last."""
    group, query = group_of(form.dtype), form.query
    depth = query.extent(_FEATURES)
    lies = query.axes[_FEATURES] == _LAST and depth % group == 0
    if group == 1 or lies:
        return lambda *index: query.at(q, *index)

    def element(*index: Any) -> Any:
        found = query.at(q, *index)
        return tirx.if_then_else(index[-1] < depth, found, tirx.const(0, form.dtype))

    shape = (*(query.extent(axis) for axis in range(3)), round_up(depth, group))
    copy = computed(shape, element, name="queries")
    return lambda *index: copy[index]


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
    counts = [form.key.extent(3), form.key.extent(2), form.value.extent(3)]
    limit = {} if form.causal is None else {CAUSAL: form.causal + 1}
    notes = {SHARED: form.shared, EXTENTS: counts, **limit}
    return {**product_of("attention", form.flops), **notes}


def _packed_keys(form: Attention, source: Any, lanes: int) -> Any:
    """The keys as `[B, H, T / lanes, D / group, lanes, group]`; groups of one have no axis.

    Behind the last one stand zeros or, where that spares a condition, the last one again: those
    columns are masked.
    """
    key = form.key
    batch, heads, depth, columns = (key.extent(axis) for axis in range(4))
    group = group_of(form.dtype)
    if key.axes[2] != _LAST or depth % group:
        extents = (batch, heads, depth, columns)
        return pack_columns(source, extents, lanes, lambda *index: key.at(source, *index))
    whole = form.whole_columns(lanes)

    def element(b: Any, h: Any, block: Any, step: Any, lane: Any, *part: Any) -> Any:
        d = step * group + part[0] if part else step
        t = block * lanes + lane
        last = tirx.const(columns - 1, "int64")
        return key.at(source, b, h, d, t if columns == whole else tirx.min(t, last))

    shape = (batch, heads, whole // lanes, depth // group, lanes)
    return computed(shape if group == 1 else (*shape, group), element, name="pack")


def _padded_mask(form: Attention, mask: Any, columns: int, lanes: int) -> Any:
    """The mask with whole vectors in each row, so that vectors of it can be read."""
    shape, width = form.mask, form.whole_columns(lanes)
    if mask is None or not shape or columns == width or shape[-1] == 1:
        return mask

    def element(*index: Any) -> Any:
        *lead, column = index
        zero = tirx.const(0, mask.dtype)
        return tirx.if_then_else(column < columns, mask[*lead, column], zero)

    return computed((*shape[:-1], width), element, name="pad")


def _softmax(form: Attention, scores: Any, mask: Any, lanes: int) -> tuple[Any, Any]:
    """The rows' exponentials, and their sums; reduced in halves that stay in vectors."""
    shape, columns = form.scores_shape(lanes), form.key.extent(3)

    def masked(*index: Any) -> Any:
        scaled = scores[index] * tirx.const(form.scale, _WIDE)
        if mask is not None:
            sizes = extents(mask)
            aligned = zip(index[len(index) - len(sizes) :], sizes, strict=True)
            met = mask[tuple(0 if isinstance(n, int) and n == 1 else i for i, n in aligned)]
            scaled = scaled + met if form.fill is None else chosen(form.fill, met, scaled)
        if form.causal is not None:
            last, end = index[-2] + form.causal, tirx.const(columns - 1, "int64")
            within = form.causal + shape[-2] <= columns
            met = index[-1] <= (last if within else tirx.min(last, end))
        elif columns == shape[-1]:
            return scaled
        else:
            met = index[-1] < columns
        return tirx.Select(met, scaled, tirx.const(float("-inf"), _WIDE))

    logits = computed(shape, masked, name="logits")
    largest = _reduce_rows(logits, te.max, "largest", lanes)
    exponentials = computed(
        shape,
        lambda b, h, s, t: tirx.exp(logits[b, h, s, t] - largest[b, h, s]).astype(form.dtype),
        name="weights",
    )
    return exponentials, _reduce_rows(exponentials, te.sum, "total", lanes)


def chosen(fill: Fill, mask: Any, scores: Any) -> Any:
    """The scores with what a mask of booleans fills in."""
    value = tirx.const(fill.value, _WIDE)
    return tirx.Select(mask, value, scores) if fill.where else tirx.Select(mask, scores, value)


def _reduce_rows(source: Any, reducer: Any, name: str, lanes: int) -> Any:
    """Reduce the last axis: to one vector, to a quarter of it, to one number."""
    *lead, width = extents(source)
    few = max(1, lanes // 4)
    i, j, k = reduced(width // lanes, "i"), reduced(lanes // few, "j"), reduced(few, "k")
    vector = computed(
        (*lead, lanes),
        lambda *x: reducer(source[*x[:-1], i * lanes + x[-1]].astype(_WIDE), axis=i),
        name=f"{name}_lanes",
    )
    quarter = computed(
        (*lead, few),
        lambda *x: reducer(vector[*x[:-1], j * few + x[-1]], axis=j),
        name=f"{name}_few",
    )
    return computed(lead, lambda *x: reducer(quarter[*x, k], axis=k), name=name)
