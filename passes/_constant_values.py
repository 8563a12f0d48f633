"""The values of expressions that depend on constants alone."""

from collections.abc import Iterable
from math import inf
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.error import InternalError

from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.ir.rewrite import Expr, Graph, constant, is_open, operator, shape
from hybridc.compiler.model import Array
from hybridc.passes import _numpy_operators

# Quantised weights stay integers; `integer-arithmetic` multiplies with them.
_QUANTIZATION = ("dequantize", "quantize")
# Elements of the largest tensor that is computed only to be looked at: a mask of 16384 rows.
_LARGEST = 2**28


class NotConstantError(Exception):
    """A value that is known only at run time, or better left to it."""


def known(expr: Expr, graph: Graph) -> Array | None:
    """The tensor that `expr` always is, however large; None if it depends on an input."""
    found, value = graph.constant(expr), graph.value(expr)
    if found is not None or not operator(value):
        return found
    if is_open(value) or np.prod(shape(value)) > _LARGEST or fed(value, graph):
        return None
    try:
        return computed(value, graph, inf)
    except NotConstantError:
        return None


def computed(value: Expr, graph: Graph, limit: float) -> Array:
    """The result of a call whose operands are constants.

    Without a limit, operands that are calls themselves are computed too.
    Raises NotConstantError.
    """
    if operator(value) in _QUANTIZATION:
        raise NotConstantError
    if isinstance(value.ty, relax.TensorType) and is_open(value):
        raise NotConstantError
    operands = [_decode(operand, graph, limit) for operand in value.args]
    if not isinstance(value.ty, relax.TensorType) or _size(value) > max(limit, _bytes(operands)):
        raise NotConstantError
    result = _numpy_operators.evaluate(
        operator(value), operands, value.attrs, shape(value), str(value.ty.dtype)
    )
    return _by_tvm(value, graph) if result is None else result


def _numbers(extents: Iterable[Any]) -> tuple[int, ...]:
    """A shape; raises NotConstantError if a size is open."""
    if not all(isinstance(extent, tvm.tirx.IntImm) for extent in extents):
        raise NotConstantError
    return tuple(int(extent) for extent in extents)


def tensor(result: Array, value: Expr) -> Expr:
    """A constant of the type that `value` has."""
    return constant(result, str(value.ty.dtype))


def fed(expr: Expr, graph: Graph) -> bool:
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


def _decode(operand: Expr, graph: Graph, limit: float) -> Any:
    """An operand as numpy and Python values.  Raises NotConstantError."""
    match graph.value(operand):
        case tvm.ir.GenericConst() as tensor:
            return tensor.value.numpy()
        case relax.ShapeExpr() as extents:
            return _numbers(extents.values)
        case tvm.tirx.IntImm() | tvm.tirx.FloatImm() as number:
            return number.value
        case tvm.ir.Tuple() as parts:
            return [_decode(part, graph, limit) for part in parts.fields]
        case call if limit == inf and operator(call):
            return computed(call, graph, limit)
        case _:
            raise NotConstantError


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

    Raises NotConstantError if the operator has effects or cannot run by itself.
    """
    if not (value.op.has_attr("FLegalize") and value.op.get_attr("FPurity")):
        raise NotConstantError
    operands = [_inlined(operand, graph) for operand in value.args]
    builder = relax.BlockBuilder()
    with builder.function("main", []):
        call = tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)
        builder.emit_func_output(builder.emit(call))
    try:
        return evaluate(builder.finalize(), [])[0]
    except InternalError:  # TVM has no code for this operator on this type; a later pass may help
        raise NotConstantError from None


def _inlined(operand: Expr, graph: Graph) -> Expr:
    """An operand without variables: they stand for constants, as `_decode` has found."""
    bound = graph.value(operand)
    if isinstance(bound, tvm.ir.Tuple):
        return tvm.ir.Tuple([_inlined(part, graph) for part in bound.fields])
    if operator(bound):
        return tensor(computed(bound, graph, inf), bound)
    return bound
