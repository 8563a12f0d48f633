"""Products with matrices that indices choose among many, each read where it lies.

A mixture of experts multiplies each token with the matrices of the experts that it is sent to.
Exporters gather them first: a copy of as many matrices as there are tokens, written and read again
for one product each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.ir.rewrite import Expr, Graph, operator, shape
from hybridc.compiler.kernels.indexing.joins import is_static
from hybridc.compiler.kernels.tensor_expressions import computed, extents, finished, reduced, tensor

_TYPE = "float32"
_INDICES = ("int32", "int64")
# Rows of which each reads the matrix again; more are worth a copy that is packed for them.
_MOST_ROWS = 4
_MATRIX = 2  # axes


def lower(builder: Any, value: Expr, graph: Graph) -> Expr | None:
    """The kernel's call for a product with gathered matrices; None for all else."""
    if operator(value) != "matmul" or not all(map(_takes, (*value.args, value))):
        return None
    left, right = value.args
    if min(len(shape(left)), len(shape(right))) < _MATRIX:
        return None
    kernel: Callable[[_Chosen, Any], Any]
    if shape(right)[-1] == 1 and (found := _gathered(left, graph)):
        other, kernel = right, _matrix_vector
    elif shape(left)[-2] <= _MOST_ROWS and (found := _gathered(right, graph)):
        other, kernel = left, _vector_matrix
    else:
        return None
    operands = [*found, other]
    x, places, y = (tensor(shape(each), "x", str(each.ty.dtype)) for each in operands)
    axes = len(shape(left if other is right else right)) - 2
    func = kernel(_Chosen(x, places, axes), y)
    return relax.call_tir(builder.add_func(func, "gathered_product"), operands, value.ty)


@dataclass(frozen=True)
class _Chosen:
    """One of `matrices` for each of `places`, whose first `axes` number them."""

    matrices: Any
    places: Any
    axes: int

    def element(self, index: Any, row: Any, column: Any) -> Any:
        """An element of the matrix for the product at `index`; no place reads memory of others."""
        sizes = extents(self.places)[: self.axes]
        at = [0 if n == 1 else i for i, n in zip(_last(index, self.axes), sizes, strict=True)]
        place = self.places[*at, *[0] * (len(extents(self.places)) - self.axes)]
        kind = str(self.places.dtype)
        end = tirx.const(extents(self.matrices)[0] - 1, kind)
        inside = tirx.max(tirx.min(place, end), tirx.const(0, kind))
        return self.matrices[tirx.Cast("int64", inside), row, column]

    def outer(self, other: Any) -> tuple[int, ...]:
        """The leading axes of a product with another operand."""
        sizes = extents(self.places)[: self.axes]
        return np.broadcast_shapes(sizes, extents(other)[:-2])


def _takes(expr: Expr) -> bool:
    return is_static(expr) and str(expr.ty.dtype) == _TYPE and 0 not in shape(expr)


def _gathered(expr: Expr, graph: Graph) -> tuple[Expr, Expr] | None:
    """The matrices that `expr` chooses of, `[N, ., .]`, and their places, if nothing else reads it.

    The places may have an axis of one behind the others.
    """
    call = graph.call(expr, "take", "gather_nd")
    if call is None or not graph.only_use(expr):
        return None
    matrices, places = call.args
    known = is_static(matrices) and is_static(places) and str(places.ty.dtype) in _INDICES
    if not known or len(shape(matrices)) != 3:
        return None
    if operator(call) == "take":
        return (matrices, places) if call.attrs.axis == 0 and shape(places) else None
    plain = int(call.attrs.batch_dims) == 0 and shape(places)[-1] == 1
    return (matrices, places) if plain else None


def _matrix_vector(chosen: _Chosen, vectors: Any) -> PrimFunc:
    """`out[..., m, 0] = sum_k matrices[places[...], m, k] * vectors[..., k, 0]`."""
    _, rows, depth = extents(chosen.matrices)
    k = reduced(depth, "k")

    def element(*i: Any) -> Any:
        term = chosen.element(i[:-2], i[-2], k) * vectors[*_aligned(i[:-2], vectors), k, 0]
        return te.sum(term, axis=k)

    out = computed((*chosen.outer(vectors), rows, 1), element, name="output")
    return finished([chosen.matrices, chosen.places, vectors, out])


def _vector_matrix(chosen: _Chosen, rows: Any) -> PrimFunc:
    """`out[..., m, n] = sum_k rows[..., m, k] * matrices[places[...], k, n]`."""
    _, depth, columns = extents(chosen.matrices)
    k = reduced(depth, "k")

    def element(*i: Any) -> Any:
        term = rows[*_aligned(i[:-2], rows), i[-2], k] * chosen.element(i[:-2], k, i[-1])
        return te.sum(term, axis=k)

    out = computed((*chosen.outer(rows), extents(rows)[-2], columns), element, name="output")
    return finished([chosen.matrices, chosen.places, rows, out])


def _aligned(index: Any, operand: Any) -> list[Any]:
    """The index of an operand's leading axes, the last of a result's, which may be broadcast."""
    sizes = extents(operand)[:-2]
    return [0 if n == 1 else i for i, n in zip(_last(index, len(sizes)), sizes, strict=True)]


def _last(index: Any, count: int) -> Any:
    return index[len(index) - count :]
