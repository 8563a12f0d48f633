"""Let integers be divided by anything without a trap."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim.expr import IntImm
from tvm.tirx import Div, FloorDiv, FloorMod, Let, Mod, Select
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.ir.rewrite import rewrite_kernels

Expr = Any  # tvm.ir.Expr

_QUOTIENTS, _RESTS = (Div, FloorDiv), (Mod, FloorMod)


@dataclass(frozen=True)
class GuardDivision(Pass):
    """Let integers be divided by anything without a trap.

    On x86, dividing an integer by 0, or the least integer by -1, ends the process.  Where the
    divisor is data, quotient and remainder by 0 become 0, as in numpy, and the quotient by -1 is
    the negative, which wraps.  Indices are divided by sizes, and stay as they are.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the divisions in every loop nest."""
        return rewrite_kernels(module, _rewrite)


def _rewrite(func: PrimFunc) -> PrimFunc:
    callbacks = [(kind, _guarded) for kind in (*_QUOTIENTS, *_RESTS)]
    body = structural_map(func.body, callbacks)
    return func if body.same_as(func.body) else func.with_body(body)


def _guarded(value: Any) -> Expr:
    dtype = str(value.ty.dtype)
    if "int" not in dtype or not _is_data(value.b):
        return value
    kind = type(value)

    def guarded(a: Expr, b: Expr) -> Expr:
        zero, one = tirx.const(0, dtype), tirx.const(1, dtype)
        by_zero = tirx.EQ(b, zero)
        if dtype.startswith("uint"):
            return Select(by_zero, zero, kind(a, Select(by_zero, one, b)))
        by_minus = tirx.EQ(b, tirx.const(-1, dtype))
        quotient = kind(a, Select(tirx.Or(by_zero, by_minus), one, b))
        if kind in _RESTS:  # of a division by 1
            return quotient
        return Select(by_zero, zero, Select(by_minus, tirx.Sub(zero, a), quotient))

    return _bound(value.a, lambda a: _bound(value.b, lambda b: guarded(a, b)))


def _is_data(divisor: Expr) -> bool:
    found: list[Any] = []
    structural_walk(divisor, (TensorLoad, found.append))
    return bool(found)


def _bound(value: Expr, body: Callable[[Expr], Expr]) -> Expr:
    """The body on a value that it uses more than once."""
    if isinstance(value, TensorLoad | IntImm | tvm.ir.Var):
        return body(value)
    var = tirx.Var("operand", value.ty)
    return Let(var, value, body(var))
