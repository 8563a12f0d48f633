"""The loop nest of products of two activations; see `contractions` for its layout."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.products.contractions import stored, widened
from hybridc.compiler.kernels.products.packing import (
    group_in,
    group_of,
    packed_index,
    round_up,
    whole_groups,
)
from hybridc.compiler.kernels.tensor_expressions import (
    computed,
    counted,
    extents,
    finished,
    product_of,
    reduced,
    tensor,
)
from hybridc.compiler.model import Array

_HALVES = ("float16", "bfloat16")


def batch_matmul(  # noqa: PLR0913, PLR0917 - shapes, how b is packed, and both types
    left: Sequence[int],
    right: Sequence[int],
    lanes: int,
    dtype: str,
    out_dtype: str = "",
    group: int = 0,
) -> PrimFunc:
    """`out[..., m, n] = sum_k a[..., m, k] * b[..., k, n]`; leading axes broadcast as in numpy.

    The result has the type in which products are added up, or `out_dtype`.  A lane takes `group`
    successive k, those of the type where none is given; one of 16 bits is widened beforehand.
    """
    depth, columns = left[-1], right[-1]
    b = tensor(right, "b", dtype)
    group = group or group_of(dtype)
    shape = (*right[:-2], depth, columns)
    packed = pack_columns(b, shape, lanes, lambda *i: b[*i[:-2], i[-2], i[-1]], group=group)
    return _of_packed(left, (b, packed), (right[:-2], columns), (dtype, out_dtype), group)


def of_packed(
    left: Sequence[int], packed: Array, columns: int, dtype: str, out_dtype: str = ""
) -> PrimFunc:
    """The same for constant matrices, each of which `pack_matrix` packed: `[..., N / lanes, …]`."""
    weight, group = tensor(packed.shape, "weight", packed.dtype.name), group_in(packed)
    batch = packed.shape[: packed.ndim - (3 if group == 1 else 4)]
    return _of_packed(left, (weight, weight), (batch, columns), (dtype, out_dtype), group)


def _of_packed(
    left: Sequence[int],
    matrices: tuple[Any, Any],
    right: tuple[Sequence[int], int],
    types: tuple[str, str],
    group: int,
) -> PrimFunc:
    """The kernel for a parameter, and what is `packed` of it or the parameter itself.

    `right` are the leading axes of the matrices, and their columns.
    """
    (b, packed), (outer, columns), (dtype, out_dtype) = matrices, right, types
    batch = np.broadcast_shapes(tuple(left[:-2]), tuple(outer))
    rows, depth = left[-2:]
    a = tensor(left, "a", dtype)
    lanes = int(packed.shape[len(outer) + 2])
    whole = whole_groups(a, group)
    k = reduced(int(whole.shape[-1]), "k")
    product = computed(
        (*batch, rows, int(packed.shape[len(outer)]) * lanes),
        lambda *i: te.sum(
            widened(whole[*_broadcast(i[:-2], left[:-2]), i[-2], k], b)
            * widened(packed[_column(_broadcast(i[:-2], outer), i[-1], k, lanes, group)], b),
            axis=k,
        ),
        name="product",
        attrs=product_of("batch-matmul", 2 * prod(batch) * rows * columns * depth),
    )
    out = computed((*batch, rows, columns), lambda *i: stored(product[i], out_dtype), name="output")
    return finished([a, b, out])


def matrix_vector(a: Any, b: Any) -> Any:
    """`out[..., m, 0] = sum_k a[..., m, k] * b[..., k, 0]`: each row of a added up as it lies.

    Leading axes may be open: they are of one size, or 1 on one side.
    """
    left, right = (extents(x) for x in (a, b))
    batch = _leading(left, right)
    k = reduced(left[-1], "k")
    return computed(
        (*batch, left[-2], 1),
        lambda *i: te.sum(
            a[*_broadcast(i[:-2], left[:-2]), i[-2], k] * b[*_broadcast(i[:-2], right[:-2]), k, 0],
            axis=k,
        ),
        name="output",
    )


def open_matmul(left: Sequence[Any], right: Sequence[Any]) -> PrimFunc:
    """The same in float32 for shapes with open sizes, and b read as it lies.

    Leading axes are of one size, or 1 on one side.
    """
    batch = _leading(left, right)
    (rows, depth), columns = left[-2:], right[-1]
    a, b = tensor(left, "a", "float32"), tensor(right, "b", "float32")
    k = reduced(depth, "k")
    product = computed(
        (*batch, rows, columns),
        lambda *i: te.sum(
            a[*_broadcast(i[:-2], left[:-2]), i[-2], k]
            * b[*_broadcast(i[:-2], right[:-2]), k, i[-1]],
            axis=k,
        ),
        name="product",
        attrs=product_of("matmul", 2 * counted(*batch, rows, columns, depth)),
    )
    out = computed((*batch, rows, columns), lambda *i: product[i], name="output")
    return finished([a, b, out])


def _leading(left: Sequence[Any], right: Sequence[Any]) -> list[Any]:
    """The leading axes of a product of two shapes, each of one size, or 1 on one side."""
    rank = max(len(left), len(right)) - 2
    leads = [[1] * (rank + 2 - len(side)) + list(side[:-2]) for side in (left, right)]
    return [b if isinstance(a, int) and a == 1 else a for a, b in zip(*leads, strict=True)]


def pack_columns(  # noqa: PLR0913 - what is packed, and how
    source: Any,
    shape: Sequence[int],
    lanes: int,
    element: Any,
    name: str = "pack",
    *,
    group: int = 0,
) -> Any:
    """Pack `element(*lead, k, n)` of shape `[..., K, N]` as `pack_matrix` does, zeros behind both.

    Elements have the type of `source`, whose `group` it is if no other is given; 16 bits that are a
    group of their own become float32.
    """
    *lead, depth, columns = shape
    group = group or group_of(str(source.dtype))
    half = group == 1 and str(source.dtype) in _HALVES
    held = "float32" if half else str(source.dtype)
    padded = round_up(columns, lanes) != columns or round_up(depth, group) != depth

    def packed(*index: Any) -> Any:
        outer, (block, step, lane) = index[: len(lead)], index[len(lead) : len(lead) + 3]
        k = step if group == 1 else step * group + index[-1]
        n = block * lanes + lane
        value = widened(element(*outer, k, n), source) if half else element(*outer, k, n)
        if not padded:
            return value
        inside = [n < columns] if depth % group == 0 else [n < columns, k < depth]
        return tirx.if_then_else(tirx.all(*inside), value, tirx.const(0, held))

    steps = round_up(depth, group) // group
    whole = (*lead, round_up(columns, lanes) // lanes, steps, lanes)
    return computed(whole if group == 1 else (*whole, group), packed, name=name)


def _column(outer: Sequence[Any], n: Any, k: Any, lanes: int, group: int) -> tuple[Any, ...]:
    return packed_index((*outer, n // lanes), k, n % lanes, group)


def _broadcast(index: Sequence[Any], shape: Sequence[Any]) -> list[Any]:
    last = index[len(index) - len(shape) :]
    return [
        0 if isinstance(extent, int) and extent == 1 else i
        for i, extent in zip(last, shape, strict=True)
    ]
