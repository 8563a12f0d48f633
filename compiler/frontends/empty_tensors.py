"""Tensors without elements, which nothing has to compute and no kernel has to be given.

A kernel of nothing is code that cannot always be generated, and TVM's reshape takes a size of 0 as
that of its operand.
"""

import tvm
from tvm import relax

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import Expr, Graph, are_known, open_shape, operator, rewrite, shape

# What these call is not ours, and may refuse its operands.
_FOREIGN = frozenset({"call_dps_packed", "call_inplace_packed", "call_pure_packed"})


def known(module: IRModule) -> IRModule:
    """Make constants of results without elements, and join other tensors without them."""
    return rewrite(module, _rule)


def _rule(value: Expr, graph: Graph) -> Expr | None:
    if _is_empty(value) and are_known(shape(value)) and _computes(value, graph):
        return relax.const(tvm.runtime.empty(shape(value), str(value.ty.dtype)))
    return _joined(value, graph) if operator(value) == "concat" else None


def _is_empty(value: Expr) -> bool:
    """Whether a tensor has an axis of no elements; other axes may be open."""
    kind = value.ty
    if not isinstance(kind, relax.TensorType) or not isinstance(kind.shape, relax.ShapeExpr):
        return False
    return any(isinstance(size, int) and size == 0 for size in open_shape(value))


def _computes(value: Expr, graph: Graph) -> bool:
    """Whether a value is the result of an operator, or one of its results."""
    if isinstance(value, tvm.ir.TupleGetItem):
        value = graph.value(value.tuple_value)
    return operator(value) not in _FOREIGN | {""}


def _joined(value: Expr, graph: Graph) -> Expr | None:
    """Tensors joined without the empty ones, which change neither type nor shape of the result."""
    operands = graph.value(value.args[0])
    if not isinstance(operands, tvm.ir.Tuple):
        return None
    full = [each for each in operands.fields if not _is_empty(each)]
    if len(full) in (0, len(operands.fields)):
        return None
    return full[0] if len(full) == 1 else relax.op.concat(full, int(value.attrs.axis))
