"""Vectorise exp, log, tanh, erf, powers, sin, cos, tan and their inverses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tvm import tirx
from tvm.ir.expr import Call
from tvm.ir.prim.expr import Add, FloatImm, Let
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.target import CUDA
from hybridc.passes import (
    _arcs,
    _erf_on_gpu,
    _float_types,
    _polynomials,
    _polynomials64,
    _powers,
    _trigonometry,
)
from hybridc.passes._expansion import expansion

Expr = Any  # tvm.ir.Expr

_LARGEST_POWER = 4
# Functions inside an argument, beyond which its own function stays a call: what TVM expands when
# it analyses nested functions grows with the product of their sizes.
_NESTED = 2
# Operators that TVM may expand a function to that contains others, beyond which it stays a call:
# some 3 s of compilation.
_EXPANDED = 2.5e6


@dataclass(frozen=True)
class FastMath(Pass):
    """Vectorise exp, log, tanh, erf, powers, sin, cos, tan and their inverses.

    Largest errors in float32, infinities and NaN included: exp, log, sin, cos and powers 2 ULP,
    asin, acos and atan 3, sigmoid and tan 4, tanh and erf 6; exp and sigmoid below 2e-38, about the
    least normal number, may come out as 0.  float16 is computed in float32.  In float64, exp, log
    and sigmoid are replaced (errors: 1, 1 and 3 ULP; exp and sigmoid below 4e-308 may be 0).  All
    else of float64 stays as it is, and so do functions whose argument already contains three
    others, or fewer whose compilation would take long (for sin, cos and tan: any). Each option
    turns one function off: `exp` (with sigmoid), `log`, `tanh`, `erf`, `sin` (with cos, tan and the
    inverses), and `power`; x to the power of 1, 2, 3 or 4 is multiplication.

    On a GPU, which has fast functions, only 1 + erf, as in GELU, is replaced (error: 2 ULP).
    """

    exp: bool = True
    log: bool = True
    tanh: bool = True
    erf: bool = True
    sin: bool = True
    power: bool = True

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the calls in every loop nest."""
        rewritten, rewrite = module, self._rewrite
        if context.target.kind == CUDA:
            rewrite = self._rewrite_on_gpu
        for var, func in module.functions_items():
            if isinstance(func, tirx.PrimFunc) and (new := rewrite(func)) is not func:
                rewritten = module.clone() if rewritten is module else rewritten
                rewritten[var] = new
        return rewritten

    def _rewrite(self, func: PrimFunc) -> PrimFunc:
        functions = self._functions()
        changed = False

        def replace(call: Any) -> Any:
            nonlocal changed
            new = _replacement(call, functions, self.power)
            changed = changed or new is not call
            return new

        before = (
            structural_map(func.body, (tirx.For, _trigonometry.in_vectors))
            if self.sin
            else func.body
        )
        body = structural_map(before, (Call, replace))
        return func.with_body(body) if changed or not before.same_as(func.body) else func

    def _rewrite_on_gpu(self, func: PrimFunc) -> PrimFunc:
        if not self.erf:
            return func
        body = structural_map(func.body, (Add, _erf_on_gpu.plus_erf))
        return func if body.same_as(func.body) else func.with_body(body)

    def _functions(self) -> dict[str, Callable[[Expr], Expr]]:
        """The functions to replace, by the names of TIR's operators."""
        chosen = {
            "tirx.exp": (self.exp, _polynomials.exp),
            "tirx.sigmoid": (self.exp, _polynomials.sigmoid),
            "tirx.log": (self.log, _polynomials.log),
            "tirx.tanh": (self.tanh, _polynomials.tanh),
            "tirx.erf": (self.erf, _polynomials.erf),
        }
        chosen |= {name: (self.sin, function) for name, function in _arcs.FUNCTIONS.items()}
        return {name: function for name, (wanted, function) in chosen.items() if wanted}


# The functions of float64 that are replaced.
_WIDE: Mapping[str, Callable[[Expr], Expr]] = MappingProxyType(
    {
        "tirx.exp": _polynomials64.exp,
        "tirx.sigmoid": _polynomials64.sigmoid,
        "tirx.log": _polynomials64.log,
    }
)


def _replacement(call: Any, functions: dict[str, Callable[[Expr], Expr]], power: bool) -> Any:
    name = str(getattr(call.op, "name", ""))
    if name in functions:
        if name in _WIDE and str(call.ty.dtype) == "float64":
            return _unless_nested(call, _WIDE[name])
        return _in_float32(call, functions[name])
    if power and name == "tirx.pow":
        exponent = call.args[1]
        if isinstance(exponent, FloatImm) and exponent.value in range(1, _LARGEST_POWER + 1):
            return _in_float32(call, lambda x, _: _polynomials.power(x, int(exponent.value)))
        return _in_float32(call, _powers.power)
    return call


def _in_float32(call: Any, function: Callable[..., Expr]) -> Any:
    dtype = str(call.ty.dtype)
    if dtype == "float32":
        return _unless_nested(call, function)
    if dtype == "float16":
        return _unless_nested(call, lambda *args: tirx.Cast(dtype, function(*map(_widened, args))))
    return call


def _unless_nested(call: Any, function: Callable[..., Expr]) -> Any:
    nested = sum(map(_functions_in, call.args))
    if nested > _NESTED:
        return call
    new = function(*call.args)
    return call if nested and expansion(new) > _EXPANDED else new


def _widened(operand: Expr) -> Expr:
    if isinstance(operand, FloatImm):
        return tirx.const(float(operand.value), "float32")
    return tirx.Cast("float32", operand)


def _functions_in(expr: Expr) -> int:
    """How many functions of `_polynomials` an expression holds already."""
    names: list[str] = []
    structural_walk(expr, (Let, lambda let: names.append(str(let.var.name))))
    return names.count(_float_types.ARGUMENT)
