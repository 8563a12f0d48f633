"""Compute at compile time what depends only on constants."""

from dataclasses import dataclass
from math import inf

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Expr, Graph, constant, operator, rewrite, shape
from hybridc.passes import _constant_values

# Their second operand is a weight: kernels, packing and folding all want it known.
_WEIGHTED = ("matmul", "nn.conv1d", "nn.conv2d", "nn.conv3d")


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace operators on constants by their results.

    A result that is larger than `limit` bytes and than its operands (a broadcast, a mask) stays an
    operator, unless it is the weight of a convolution or matrix product: reading
    it from memory costs more than computing it.  The default is the size of an L2 cache.
    """

    limit: int = 2**20

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Fold in order, so that a chain of constants takes one walk."""
        return rewrite(module, self._fold)

    def _fold(self, value: Expr, graph: Graph) -> Expr | None:
        if isinstance(value, tvm.ir.TupleGetItem):
            return _part_of_split(value, graph)
        if operator(value) in ("", "split"):
            return None
        if operator(value) == "shape_of":
            return relax.ShapeExpr(shape(value.args[0]))
        try:
            return _constant_values.tensor(
                _constant_values.computed(value, graph, self.limit), value
            )
        except _constant_values.NotConstantError:
            return _with_constant_weight(value, graph)


def _with_constant_weight(value: Expr, graph: Graph) -> Expr | None:
    weight = graph.value(value.args[1]) if operator(value) in _WEIGHTED else None
    if not operator(weight) or _constant_values.fed(weight, graph):
        return None
    try:
        known = _constant_values.tensor(_constant_values.computed(weight, graph, inf), weight)
    except _constant_values.NotConstantError:
        return None
    return tvm.ir.Call(value.op, [value.args[0], known], value.attrs, value.ty_args)


def _part_of_split(value: Expr, graph: Graph) -> Expr | None:
    """One part of a constant that is split; the sizes of the parts say where it lies."""
    split = graph.call(value.tuple_value, "split")
    data = None if split is None else graph.constant(split.args[0])
    if split is None or data is None:
        return None
    axis = int(split.attrs.axis) % data.ndim
    ends = np.cumsum([int(part.shape.values[axis]) for part in split.ty.fields])
    return constant(np.split(data, ends[:-1], axis)[value.index], str(value.ty.dtype))
