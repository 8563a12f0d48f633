"""Round and cast to narrow integers by one addition."""

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir.expr import Call
from tvm.ir.prim.expr import FloatImm
from tvm.tirx import Add, Cast, Max, Min
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc

# 1.5 * 2^23: fp32 numbers around it lie 1 apart, so adding it rounds, half to even as it is even
# itself.  The low 22 bits of the sum are then the integer, in two's complement.
_SHIFT = 12582912.0
_NARROW = {"int8": 8, "uint8": 8, "int16": 16, "uint16": 16}
_FARTHEST = 2**21


@dataclass(frozen=True)
class SaturatingCasts(Pass):
    """Round and cast to narrow integers by one addition.

    `cast(min(max(nearbyint(x) + zero, low), high))` to 8 or 16 bits takes the bits of
    `min(max(x, low - zero), high - zero) + 1.5 * 2^23` instead: the same integers, NaN apart, in
    fewer instructions.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the casts in every loop nest."""
        rewritten = module
        for var, func in module.functions_items():
            if isinstance(func, tirx.PrimFunc) and (new := _rewrite(func)) is not func:
                rewritten = module.clone() if rewritten is module else rewritten
                rewritten[var] = new
        return rewritten


def _rewrite(func: PrimFunc) -> PrimFunc:
    body = structural_map(func.body, (Cast, _replacement))
    return func if body.same_as(func.body) else func.with_body(body)


def _replacement(cast: Any) -> Any:
    dtype = str(cast.ty.dtype)
    low, high = _bound(cast.value, Min), None
    if dtype not in _NARROW or low is None:
        return cast
    high, inner = low
    low = _bound(inner, Max)
    if low is None:
        return cast
    zero, rounded = 0.0, low[1]
    if isinstance(rounded, Add) and isinstance(rounded.b, FloatImm):
        zero, rounded = float(rounded.b.value), rounded.a
    if not isinstance(rounded, Call) or str(getattr(rounded.op, "name", "")) != "tirx.nearbyint":
        return cast
    limits = [low[0] - zero, high - zero]
    whole = all(number == int(number) for number in (*limits, zero))
    if not whole or max(map(abs, limits)) > _FARTHEST or str(rounded.ty.dtype) != "float32":
        return cast
    smallest, largest = (tirx.const(limit, "float32") for limit in limits)
    # Within the limits first: a product of which the shift is added at once would round but once.
    within = tirx.min(tirx.max(rounded.args[0], smallest), largest)
    bits = tirx.reinterpret("int32", within + tirx.const(_SHIFT, "float32"))
    return Cast(dtype, bits + tirx.const(int(zero), "int32") if zero else bits)


def _bound(expr: Any, kind: Any) -> tuple[float, Any] | None:
    """A constant bound of `expr`, and what it bounds."""
    if isinstance(expr, kind) and isinstance(expr.b, FloatImm):
        return float(expr.b.value), expr.a
    return None
