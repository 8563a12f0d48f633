"""The loop nest of products with weights that lie as `[N, K]`: neighbours along the depth."""

from collections.abc import Sequence
from typing import Any

from tvm import te

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.contractions import stored, widened
from hybridc.compiler.kernels.tensor_expressions import (
    RowForm,
    computed,
    counted,
    finished,
    product_of,
    reduced,
    tensor,
)
from hybridc.compiler.model import Array


def dense(shape: Sequence[int], weight: Array, dtype: str, out_dtype: str) -> PrimFunc:
    """`out[..., n] = sum_k x[..., k] * w[n, k]` for x of `shape`, added up as `contractions` do.

    Sizes of x but the last may be open.
    """
    columns, depth = weight.shape
    form = RowForm(tuple(shape[:-1]))
    x, w = tensor(shape, "x", dtype), tensor(weight.shape, "weight", weight.dtype.name)
    k = reduced(depth, "k")

    def element(row: Sequence[Any], n: Any) -> Any:
        return te.sum(widened(x[*form.place(row), k], w) * widened(w[n, k], w), axis=k)

    product = computed(
        (*form.axes, columns),
        (lambda m, n: element([m], n))
        if len(form.axes) == 1
        else lambda *i: element(i[:-1], i[-1]),
        name="product",
        attrs=product_of("dense", 2 * counted(*shape) * columns),
    )
    out = computed(
        (*shape[:-1], columns),
        lambda *index: stored(product[*form.row(index[:-1]), index[-1]], out_dtype),
        name="output",
    )
    return finished([x, w, out])
