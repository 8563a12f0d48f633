"""Scaled dot-product attention in the fewest stages, for rules that write their kernel themselves.

The stages say what is computed and nothing of how: no operand is packed, no row is padded, no sum
is taken in parts.
"""

from typing import Any

from tvm import te, tirx

from hybridc.compiler.cuda.gpu import Gpu
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.attention.attention import CAUSAL, chosen
from hybridc.compiler.kernels.attention.attention_form import Attention, with_form
from hybridc.compiler.kernels.tensor_expressions import (
    computed,
    extents,
    finished,
    product_of,
    reduced,
    tensor,
)

_WIDE = "float32"
# Of queries, keys and values on a GPU: the sums of wider ones leave no registers for scores.
MOST_WIDTH = 256
# Elements of 4 bytes that the least a block may have of shared memory: 16 queries, 32 keys, as many
# values.  Of 2 bytes it is 64 keys, and less in all.
_LEAST_ROWS, _WHOLE, _BYTES = 16 + 2 * 32, 64, 4
# The blocks, in order; `output` may have others behind it.
STAGES = ("scores", "logits", "largest", "weights", "total", "values", "output")


def fits(form: Attention, gpu: Gpu) -> bool:
    """Whether a GPU's rule takes it: sizes are known, and heads no wider than a block has room."""
    width = max(form.key.extent(2), form.value.extent(3))
    shared = _LEAST_ROWS * -(-width // _WHOLE) * _WHOLE * _BYTES
    return isinstance(form.batch, int) and width <= MOST_WIDTH and shared <= gpu.shared_per_block


def attention_stages(form: Attention) -> PrimFunc:
    """The kernel: parameters q, k, v and the mask if there is one; result `[B, S, H, D]`."""
    batch, heads, rows = (form.query.extent(axis) for axis in range(3))
    columns, depth, features = form.key.extent(3), form.key.extent(2), form.value.extent(3)
    q, k, v = (
        tensor(operand.shape, name, form.dtype)
        for operand, name in ((form.query, "q"), (form.key, "k"), (form.value, "v"))
    )
    mask = None if form.mask is None else tensor(form.mask, "mask", _kind(form))
    d, t, u, w = (reduced(n, x) for n, x in ((depth, "d"), *((columns, x) for x in "tuw")))
    limit = {} if form.causal is None else {CAUSAL: form.causal + 1}
    scores = computed(
        (batch, heads, rows, columns),
        lambda b, h, s, c: te.sum(
            form.query.at(q, b, h, s, d).astype(_WIDE)
            * form.key.at(k, b, h // form.shared, d, c).astype(_WIDE),
            axis=d,
        ),
        name="scores",
        attrs={**product_of("attention", form.flops), **limit},
    )
    logits = computed(
        (batch, heads, rows, columns), lambda *x: _logit(form, scores, mask, x), name="logits"
    )
    row = (batch, heads, rows)
    largest = computed(row, lambda *x: te.max(logits[*x, u], axis=u), name="largest")
    weights = computed(
        (*row, columns), lambda *x: tirx.exp(logits[x] - largest[x[:-1]]), name="weights"
    )
    total = computed(row, lambda *x: te.sum(weights[*x, w], axis=w), name="total")
    values = computed(
        (*row, features),
        lambda b, h, s, e: te.sum(
            weights[b, h, s, t] * form.value.at(v, b, h // form.shared, t, e).astype(_WIDE), axis=t
        ),
        name="values",
    )

    def normalised(b: Any, s: Any, h: Any, e: Any) -> Any:
        quotient = values[b, h, s, e] / total[b, h, s]
        zero = tirx.const(0, _WIDE)
        return tirx.Select(total[b, h, s] > zero, quotient, zero) if form.safe else quotient

    out = computed((batch, rows, heads, features), normalised, name="output")
    return with_form(finished([q, k, v, *([] if mask is None else [mask]), out]), form)


def _kind(form: Attention) -> str:
    return _WIDE if form.fill is None else "bool"


def _logit(form: Attention, scores: Any, mask: Any, index: tuple[Any, ...]) -> Any:
    """A score, scaled and masked."""
    scaled = scores[index] * tirx.const(form.scale, _WIDE)
    if mask is not None:
        sizes = extents(mask)
        aligned = zip(index[len(index) - len(sizes) :], sizes, strict=True)
        met = mask[tuple(0 if n == 1 else i for i, n in aligned)]
        scaled = scaled + met if form.fill is None else chosen(form.fill, met, scaled)
    if form.causal is None:
        return scaled
    met = index[-1] <= index[-2] + form.causal
    return tirx.Select(met, scaled, tirx.const(float("-inf"), _WIDE))
