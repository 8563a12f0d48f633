"""Round and cast to narrow integers by one addition, or by saturating instructions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir.expr import Call
from tvm.ir.prim.expr import FloatImm
from tvm.tirx import Add, Cast, Max, Min
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.target import CPU, Target
from hybridc.passes import _byte_vectors

# 1.5 * 2^23: fp32 numbers around it lie 1 apart, so adding it rounds, half to even as it is even
# itself.  The low 22 bits of the sum are then the integer, in two's complement.
_SHIFT = 12582912.0
_NARROW = {"int8": 8, "uint8": 8, "int16": 16, "uint16": 16}
_FARTHEST = 2**21
# What is larger has no place in 32 bits, and would come out as the least of them; with a zero point
# added to it, this still has.
_LARGEST = 2.0**30
_BYTE = 255
_BITS = 256


@dataclass(frozen=True)
class SaturatingCasts(Pass):
    """Round and cast to narrow integers by one addition, or by saturating instructions.

    `cast(min(max(nearbyint(x) + zero, low), high))` to 8 or 16 bits takes the bits of
    `min(max(x, low - zero), high - zero) + 1.5 * 2^23` instead: the same integers, NaN apart, in
    fewer instructions.

    256-bit vectors have no instruction that keeps the low byte of each lane, but one that packs two
    vectors of words into bytes, with saturation.  There x becomes int32 and is clamped as an
    integer, in vectors that fill a register with bytes where two or four are adjacent.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the casts in every loop nest."""
        cast = _saturated if _packs(context.target) else _added
        rewritten = module
        for var, func in module.functions_items():
            if isinstance(func, tirx.PrimFunc) and (new := _rewrite(func, cast)) is not func:
                rewritten = module.clone() if rewritten is module else rewritten
                rewritten[var] = new
        return rewritten


@dataclass(frozen=True)
class _Rounding:
    """`cast(min(max(nearbyint(data) + zero, low), high))`."""

    data: Any
    zero: int
    low: int
    high: int


def _packs(target: Target) -> bool:
    return target.kind == CPU and target.vector_bits == _BITS


def _rewrite(func: PrimFunc, cast: Callable[[str, _Rounding], Any]) -> PrimFunc:
    def replacement(node: Any) -> Any:
        found = _rounding(node)
        return node if found is None else cast(str(node.ty.dtype), found)

    body = structural_map(func.body, (Cast, replacement))
    if body.same_as(func.body):
        return func
    return func.with_body(_byte_vectors.joined(body) if cast is _saturated else body)


def _rounding(cast: Any) -> _Rounding | None:
    """What a cast rounds and limits, where it does."""
    dtype = str(cast.ty.dtype)
    low, high = _bound(cast.value, Min), None
    if dtype not in _NARROW or low is None:
        return None
    high, inner = low
    low = _bound(inner, Max)
    if low is None:
        return None
    zero, rounded = 0.0, low[1]
    if isinstance(rounded, Add) and isinstance(rounded.b, FloatImm):
        zero, rounded = float(rounded.b.value), rounded.a
    if not isinstance(rounded, Call) or str(getattr(rounded.op, "name", "")) != "tirx.nearbyint":
        return None
    limits = [low[0] - zero, high - zero]
    whole = all(number == int(number) for number in (*limits, zero))
    if not whole or max(map(abs, limits)) > _FARTHEST or str(rounded.ty.dtype) != "float32":
        return None
    return _Rounding(rounded.args[0], int(zero), int(limits[0]), int(limits[1]))


def _added(dtype: str, rounding: _Rounding) -> Any:
    smallest, largest = (tirx.const(n, "float32") for n in (rounding.low, rounding.high))
    # Within the limits first: a product of which the shift is added at once would round but once.
    within = tirx.min(tirx.max(rounding.data, smallest), largest)
    bits = tirx.reinterpret("int32", within + tirx.const(_SHIFT, "float32"))
    zero = rounding.zero
    return Cast(dtype, bits + tirx.const(zero, "int32") if zero else bits)


def _saturated(dtype: str, rounding: _Rounding) -> Any:
    """Bytes without a sign by integers; what is too small is the least of these, and saturates."""
    zero = rounding.zero
    if (dtype, rounding.low, rounding.high) != ("uint8", -zero, _BYTE - zero) or zero < 0:
        return _added(dtype, rounding)
    within = tirx.min(rounding.data, tirx.const(_LARGEST, "float32"))
    whole = tirx.call_llvm_pure_intrin("int32", "llvm.lrint", within)
    whole = whole + tirx.const(zero, "int32") if zero else whole
    limits = (tirx.const(limit, "int32") for limit in (0, _BYTE))
    return Cast(dtype, tirx.min(tirx.max(whole, next(limits)), next(limits)))


def _bound(expr: Any, kind: Any) -> tuple[float, Any] | None:
    """A constant bound of `expr`, and what it bounds."""
    if isinstance(expr, kind) and isinstance(expr.b, FloatImm):
        return float(expr.b.value), expr.a
    return None
