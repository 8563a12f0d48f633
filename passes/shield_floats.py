"""Keep simplifications that hold only for integers away from floats."""

from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir.prim import expr as prim
from tvm.tirx import Cast, Let
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.ir.rewrite import rewrite_kernels

Expr = Any  # tvm.ir.Expr

_COMPARISONS = (prim.LT, prim.LE, prim.GT, prim.GE, prim.EQ, prim.NE)
# Of these a difference is taken apart.
_SUMS = (prim.Add, prim.Sub, prim.Max, prim.Min)


@dataclass(frozen=True)
class ShieldFloats(Pass):
    """Keep simplifications that hold only for integers away from floats.

    As it lowers kernels, TVM simplifies `x + y - y` to x, `x == x` to true and `not x < y` to
    `y <= x`, which is wrong where sums are rounded or a number is NaN.  So operands of differences
    are bound to variables, and results of comparisons are read as bytes.  LLVM sees through both,
    and computes according to IEEE 754.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the differences and comparisons of floats in every loop nest."""
        return rewrite_kernels(module, _rewrite)


def _rewrite(func: PrimFunc) -> PrimFunc:
    callbacks = [(prim.Sub, _difference), *((kind, _truth) for kind in _COMPARISONS)]
    body = structural_map(func.body, callbacks)
    return func if body.same_as(func.body) else func.with_body(body)


def _difference(value: Any) -> Expr:
    if not _is_float(value.a):
        return value
    equal = _same(value.a, value.b)
    a, b = (_Bound.of(each, equal or isinstance(each, _SUMS)) for each in (value.a, value.b))
    if a.value is None and b.value is None:
        return value
    return a.around(b.around(prim.Sub(a.use, b.use)))


def _truth(value: Any) -> Expr:
    """A comparison as a byte that is not zero."""
    if not _is_float(value.a):
        return value
    kind = type(value)
    negated = kind is prim.NE and _same(value.a, value.b)
    if kind in (prim.EQ, prim.NE) and _same(value.a, value.b):
        value = prim.LE(value.a, value.b)  # which holds of all but NaN
    lanes = int(value.ty.dtype.lanes)
    bytes_of = "int8" if lanes == 1 else f"int8x{lanes}"
    byte, zero = Cast(bytes_of, value), tirx.const(0, bytes_of)
    return prim.EQ(byte, zero) if negated else prim.NE(byte, zero)


@dataclass(frozen=True)
class _Bound:
    """An operand: what to use of it, and what that is bound to, if it is."""

    use: Expr
    value: Expr | None = None

    @classmethod
    def of(cls, operand: Expr, wanted: bool) -> "_Bound":
        if not wanted or isinstance(operand, prim.FloatImm):
            return cls(operand)
        return cls(tirx.Var("operand", operand.ty), operand)

    def around(self, body: Expr) -> Expr:
        """The body with the binding that it needs."""
        return body if self.value is None else Let(self.use, self.value, body)


def _same(a: Expr, b: Expr) -> bool:
    return bool(tvm_ffi.structural_equal(a, b))


def _is_float(expr: Expr) -> bool:
    return "float" in str(expr.ty.dtype)
