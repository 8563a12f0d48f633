"""Products with several constant matrices, such as those of experts: each is packed."""

from math import prod

import numpy as np

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.ir.rewrite import Expr, are_known, shape
from hybridc.compiler.kernels.products import batch_matmul, packing
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

_FLOATS = {"float32", "float16", "bfloat16"}


def of_call(call: Expr, weight: Array, target: Target) -> tuple[PrimFunc, Array] | None:
    """The kernel for a product with matrices `[..., K, N]`, and these packed; None for others.

    All sizes are known, and the matrices are of floats.
    """
    rows, columns, dtype = shape(call.args[0]), weight.shape[-1], weight.dtype.name
    if dtype not in _FLOATS or not are_known(rows) or 0 in (*rows, *weight.shape):
        return None
    made = packed(weight, target)
    data, result = str(call.args[0].ty.dtype), str(call.ty.dtype)
    return batch_matmul.of_packed(rows, made, columns, data, result), made


def packed(weight: Array, target: Target) -> Array:
    """Each of the matrices packed."""
    batch = weight.shape[:-2]
    matrices = weight.reshape(prod(batch), *weight.shape[-2:])
    made = np.stack([packing.pack_matrix(each, target.lanes()) for each in matrices])
    return made.reshape(*batch, *made.shape[1:])
