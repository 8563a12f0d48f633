"""Scaled dot-product attention as one loop nest: no matrix of scores in memory.

A block of rows meets all keys, is exponentiated and meets all values while its scores lie in the
caches nearest to a core; the scores of the next block take their place.  T. Dao and others,
FlashAttention: Fast and Memory-Efficient Exact Attention, 2022, for the idea; the scores of a few
rows fit a CPU's cache whole, so no running maximum is needed here.
"""

from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.tensor_expressions import computed, finished, product_of, reduced, tensor


@dataclass(frozen=True)
class Operand:
    """A tensor of rank 4 and the order of its axes: `axes[i]` holds logical axis i.

    The logical axes are batch, head, position, feature for queries and values, and batch, head,
    feature, position for keys.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def extent(self, axis: int) -> int:
        """Extent of a logical axis."""
        return self.shape[self.axes[axis]]

    def at(self, source: Any, *index: Any) -> Any:
        """The element of `source` at a logical index."""
        physical: list[Any] = [None] * len(index)
        for axis, i in zip(self.axes, index, strict=True):
            physical[axis] = i
        return source[tuple(physical)]


@dataclass(frozen=True)
class Attention:
    """`softmax(scale * q k + mask) v`; `mask` is the shape of what is added, or None.

    Several query heads may share one head of keys and values.  Rows whose weights are no numbers
    give zeros if `safe`, as PyTorch's attention does for rows that are masked wholly.
    """

    query: Operand
    key: Operand
    value: Operand
    scale: float
    mask: tuple[int, ...] | None
    safe: bool


def attention(form: Attention, lanes: int) -> PrimFunc:
    """The kernel: parameters q, k, v and the mask if there is one; result `[B, S, H, D]`."""
    batch, heads, rows, depth = (form.query.extent(axis) for axis in range(4))
    columns, features = form.key.extent(3), form.value.extent(3)
    shared = heads // form.key.extent(1)
    q = tensor(form.query.shape, "q", "float32")
    k = tensor(form.key.shape, "k", "float32")
    v = tensor(form.value.shape, "v", "float32")
    mask = None if form.mask is None else tensor(form.mask, "mask", "float32")
    keys = _packed_keys(form.key, k, lanes)
    d, t = reduced(depth, "d"), reduced(columns, "t")
    flops = 2 * batch * heads * rows * columns * (depth + features)
    scores = computed(
        (batch, heads, rows, -(-columns // lanes) * lanes),
        lambda b, h, s, c: te.sum(
            form.query.at(q, b, h, s, d) * keys[b, h // shared, c // lanes, d, c % lanes], axis=d
        ),
        name="scores",
        attrs=product_of("attention", flops),
    )
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
    """The mask with whole vectors in each row: what lies behind the last column has no weight."""
    if columns % lanes == 0:
        return mask
    shape = form.mask or (1, 1, 1, columns)
    broadcast = shape[-1] == 1

    def element(*index: Any) -> Any:
        *lead, column = index
        inside: Any = tirx.const(0, "float32")
        if mask is not None:
            inside = mask[*lead, 0 if broadcast else column]
        return tirx.if_then_else(column < columns, inside, tirx.const(float("-inf"), "float32"))

    width = -(-columns // lanes) * lanes
    return computed((*shape[:-1], width), element, name="pad")


def _softmax(form: Attention, scores: Any, mask: Any, lanes: int) -> tuple[Any, Any]:
    """The rows' exponentials, and their sums; reduced in halves that stay in vectors."""
    shape = [int(extent) for extent in scores.shape]

    def masked(*index: Any) -> Any:
        scaled = scores[index] * tirx.const(form.scale, "float32")
        if mask is None:
            return scaled
        extents = [int(extent) for extent in mask.shape]
        aligned = index[len(index) - len(extents) :]
        return (
            scaled
            + mask[
                tuple(0 if extent == 1 else i for i, extent in zip(aligned, extents, strict=True))
            ]
        )

    logits = computed(shape, masked, name="logits")
    largest = _reduce_rows(logits, te.max, "largest", lanes)
    exponentials = computed(
        shape, lambda b, h, s, t: tirx.exp(logits[b, h, s, t] - largest[b, h, s]), name="weights"
    )
    return exponentials, _reduce_rows(exponentials, te.sum, "total", lanes)


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
