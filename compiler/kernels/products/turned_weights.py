"""The loop nest of products with weights that lie as `[N, K]`: neighbours along the depth."""

from collections.abc import Sequence
from typing import Any

from tvm import te

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.products.contractions import dense_output, widened
from hybridc.compiler.kernels.tensor_expressions import RowForm, finished, reduced, tensor
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

    out = dense_output(form, shape, (columns, columns), element, out_dtype)
    return finished([x, w, out])
