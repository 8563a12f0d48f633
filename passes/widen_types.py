"""Compute in a wider type what TVM's code generator lacks for a narrow one."""

from dataclasses import dataclass

import tvm
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.rewrite import Expr, Graph, operator, rewrite

# Their result has a type of its own, whatever that of the operands.
_FIXED = frozenset(
    {"argmax", "argmin", "equal", "greater", "greater_equal", "less", "less_equal", "not_equal"}
)
# Vectors of single bits have no arithmetic, and compare as if they were floats.
_OF_BITS = _FIXED | {"add", "max", "maximum", "min", "minimum", "multiply", "prod", "sum"}
# Functions that LLVM has for float32, but not for shorter floats.
_OF_HALVES = frozenset({"acos", "acosh", "asin", "asinh", "atan"})
_NAMES = _OF_BITS | _OF_HALVES | {"power"}


@dataclass(frozen=True)
class WidenTypes(Pass):
    """Compute in a wider type what the code generator lacks for a narrow one.

    Arithmetic on truth values is done on integers, powers of integers in float64 as ONNX Runtime
    does them, and rare functions of float16 in float32; the result gets the type it had.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Put casts around the operators concerned."""
        return rewrite(module, _widen)


def _widen(value: Expr, graph: Graph) -> Expr | None:
    name = operator(value)
    if name not in _NAMES:
        return None
    wide = _wide(name, str(value.args[0].ty.dtype))
    if wide is None:
        return None
    operands = [relax.op.astype(operand, wide) for operand in value.args]
    computed = tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)
    return computed if name in _FIXED else relax.op.astype(computed, str(value.ty.dtype))


def _wide(name: str, dtype: str) -> str | None:
    """The type to compute an operator in, or None where the one that it has will do."""
    if name in _OF_BITS and dtype == "bool":
        return "int32" if name == "sum" else "int8"
    if name in _OF_HALVES and dtype in ("float16", "bfloat16"):
        return "float32"
    return "float64" if name == "power" and "int" in dtype else None
