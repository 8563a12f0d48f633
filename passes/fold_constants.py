"""Compute at compile time what depends on constants alone."""

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.error import InternalError

from hybridc.compiler.evaluate import evaluate
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.model import Array
from hybridc.compiler.rewrite import Expr, Graph, constant, operator, rewrite, shape
from hybridc.passes import _numpy_operators

# Quantised weights stay integers; `integer-arithmetic` multiplies with them.
_QUANTIZATION = ("dequantize", "quantize")
# Their second operand is a weight: kernels, packing and folding all want it known.
_WEIGHTED = ("matmul", "nn.conv1d", "nn.conv2d", "nn.conv3d")


class _NotConstantError(Exception):
    """A value that is known only at run time, or better left to it."""


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace operators on constants by their result.

    A result larger than `limit` bytes that is also larger than what it is made from (a broadcast,
    a mask) stays an operator, unless it is the weight of a convolution or matrix product: reading
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
            return _tensor(_computed(value, graph, self.limit), value)
        except _NotConstantError:
            return _with_constant_weight(value, graph)


def _computed(value: Expr, graph: Graph, limit: float) -> Array:
    """The result of a call whose operands are constants.

    Without a limit, operands that are calls themselves are computed too.
    Raises _NotConstantError.
    """
    if operator(value) in _QUANTIZATION:
        raise _NotConstantError
    operands = [_decode(operand, graph, limit) for operand in value.args]
    if not isinstance(value.ty, relax.TensorType) or _size(value) > max(limit, _bytes(operands)):
        raise _NotConstantError
    result = _numpy_operators.evaluate(
        operator(value), operands, value.attrs, shape(value), str(value.ty.dtype)
    )
    return _by_tvm(value, graph) if result is None else result


def _tensor(result: Array, value: Expr) -> Expr:
    return constant(result, str(value.ty.dtype))


def _with_constant_weight(value: Expr, graph: Graph) -> Expr | None:
    weight = graph.value(value.args[1]) if operator(value) in _WEIGHTED else None
    if not operator(weight) or _fed(weight, graph):
        return None
    try:
        known = _tensor(_computed(weight, graph, inf), weight)
    except _NotConstantError:
        return None
    return tvm.ir.Call(value.op, [value.args[0], known], value.attrs, value.ty_args)


def _fed(expr: Expr, graph: Graph) -> bool:
    """Whether a value depends on an input; walks no deeper in calls, however deep the network."""
    waiting, seen = [expr], set[Any]()
    while waiting:
        value = graph.value(waiting.pop())
        if isinstance(value, relax.Var):
            return True
        if operator(value) and value not in seen:
            seen.add(value)
            waiting.extend(value.args)
        elif isinstance(value, tvm.ir.Tuple):
            waiting.extend(value.fields)
        elif isinstance(value, tvm.ir.TupleGetItem):
            waiting.append(value.tuple_value)
    return False


def _part_of_split(value: Expr, graph: Graph) -> Expr | None:
    """One part of a constant that is split; the sizes of the parts say where it lies."""
    split = graph.call(value.tuple_value, "split")
    data = None if split is None else graph.constant(split.args[0])
    if split is None or data is None:
        return None
    axis = int(split.attrs.axis) % data.ndim
    ends = np.cumsum([int(part.shape.values[axis]) for part in split.ty.fields])
    return constant(np.split(data, ends[:-1], axis)[value.index], str(value.ty.dtype))


def _decode(operand: Expr, graph: Graph, limit: float) -> Any:
    """An operand as numpy and Python values.  Raises _NotConstantError."""
    match graph.value(operand):
        case tvm.ir.GenericConst() as tensor:
            return tensor.value.numpy()
        case relax.ShapeExpr() as extents:
            return tuple(int(extent) for extent in extents.values)
        case tvm.tirx.IntImm() | tvm.tirx.FloatImm() as number:
            return number.value
        case tvm.ir.Tuple() as parts:
            return [_decode(part, graph, limit) for part in parts.fields]
        case call if limit == inf and operator(call):
            return _computed(call, graph, limit)
        case _:
            raise _NotConstantError


def _size(value: Expr) -> int:
    """Bytes of a tensor."""
    return int(np.prod(shape(value))) * np.dtype(str(value.ty.dtype)).itemsize


def _bytes(operand: Any) -> int:
    """Bytes of all arrays in an operand."""
    if isinstance(operand, list):
        return sum(_bytes(part) for part in operand)
    return operand.nbytes if isinstance(operand, np.ndarray) else 0


def _by_tvm(value: Expr, graph: Graph) -> Array:
    """Compile and run one operator: slow, for the few that numpy has no word for.

    Raises _NotConstantError where the operator has effects or cannot run by itself.
    """
    if not (value.op.has_attr("FLegalize") and value.op.get_attr("FPurity")):
        raise _NotConstantError
    operands = [_inlined(operand, graph) for operand in value.args]
    builder = relax.BlockBuilder()
    with builder.function("main", []):
        call = tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)
        builder.emit_func_output(builder.emit(call))
    try:
        return evaluate(builder.finalize(), [])[0]
    except InternalError:  # TVM has no code for this operator on this type; a later pass may help
        raise _NotConstantError from None


def _inlined(operand: Expr, graph: Graph) -> Expr:
    """An operand without variables: they stand for constants, as `_decode` has found."""
    bound = graph.value(operand)
    if isinstance(bound, tvm.ir.Tuple):
        return tvm.ir.Tuple([_inlined(part, graph) for part in bound.fields])
    if operator(bound):
        return _tensor(_computed(bound, graph, inf), bound)
    return bound
