"""Products of one row with a transposed matrix, whose rows are added up as they lie.

One query meets all keys, or one user all items: exporters transpose the keys, a copy of all of them
that is written and read again for a single row.
"""

from typing import Any

from tvm import relax

from hybridc.compiler.ir.rewrite import Expr, Graph, open_shape, operator, shape
from hybridc.compiler.target import Target

_TYPE = "float32"


def lower(value: Expr, graph: Graph, target: Target) -> Expr | None:
    """`x[..., 1, k] * y[..., n, k]^T` as `y * x^T`, which is a column; None for all else."""
    if operator(value) != "matmul" or not all(map(_takes, (*value.args, value))):
        return None
    left, right = value.args
    transpose = graph.call(right, "permute_dims")
    if transpose is None or not _swaps_last(transpose) or not graph.only_use(right):
        return None
    *batch, rows, depth = open_shape(left)
    # Short rows fill no vectors.
    if rows != 1 or not isinstance(depth, int) or depth < target.lanes():
        return None
    column = relax.op.reshape(left, [*batch, depth, 1])
    return relax.op.reshape(relax.op.matmul(transpose.args[0], column), shape(value))


def _takes(operand: Any) -> bool:
    kind = operand.ty
    known = isinstance(kind, relax.TensorType) and isinstance(kind.shape, relax.ShapeExpr)
    return known and str(kind.dtype) == _TYPE and len(shape(operand)) > 1


def _swaps_last(transpose: Expr) -> bool:
    rank = len(shape(transpose))
    axes = transpose.attrs.axes
    order = range(rank)[::-1] if axes is None else [int(axis) % rank for axis in axes]
    return list(order) == [*range(rank - 2), rank - 1, rank - 2]
