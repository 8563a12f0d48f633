"""bfloat16 in loop nests: 16 bits in memory, float32 in registers.

TVM computes bfloat16 in float32 as well, but keeps what a kernel stores for itself in float32,
rounds without regard to NaN, and never by the CPU's own instruction.  Here both ways are spelled
out: widening is a shift of bits, rounding (to nearest, ties to even) an operator of ours that
becomes one instruction where the CPU has AVX512-BF16, integer arithmetic elsewhere.

The instruction takes subnormal numbers as zero and keeps NaN.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.op import _ffi_api
from tvm.ir.prim import expr as prim

from hybridc.compiler.hardware.narrow import BF16
from hybridc.compiler.target import Target

BFLOAT16 = "bfloat16"
# The operator by which kernels round to bfloat16.
OPERATOR = "tirx.hybridc_round_bfloat16"
_BITS = 16
_HALF = 0x7FFF  # just below half of the last place that is kept
_QUIET = 0x40  # keeps a NaN from becoming an infinity when its low bits go

# From `%x`, of vector or scalar type `{float}`; `%r` is the result.
_INSTRUCTION = """
  %n = fptrunc {float} %x to {bfloat}
  %r = bitcast {bfloat} %n to {short}
"""
_ARITHMETIC = """
  %b = bitcast {float} %x to {int}
  %k = lshr {int} %b, {s16}
  %l = and {int} %k, {s1}
  %h = add {int} %l, {s32767}
  %s = add {int} %b, %h
  %u = lshr {int} %s, {s16}
  %q = or {int} %k, {s64}
  %c = fcmp uno {float} %x, %x
  %v = select {bit} %c, {int} %q, {int} %u
  %r = trunc {int} %v to {short}
"""
_NAME = "hybridc_round_bfloat16"


def lanes_of(dtype: str) -> int:
    """The lanes of a vector type such as `float32x16`; 1 for a scalar."""
    return int(dtype.partition("x")[2] or 1)


def widen(bits: Any) -> Any:
    """The float32 with these upper 16 bits, lane by lane."""
    lanes = lanes_of(str(bits.ty.dtype))
    suffix = f"x{lanes}" if lanes > 1 else ""
    shift = tirx.const(_BITS, "uint32")
    shifted = tirx.Cast(f"uint32{suffix}", bits) << (
        tirx.Broadcast(shift, lanes) if lanes > 1 else shift
    )
    return tirx.reinterpret(f"float32{suffix}", shifted)


def widened(value: Any) -> Any:
    """The bits that `widen` made a float32 of, or None."""
    shifted = value.args[0]
    if not isinstance(shifted, prim.LShift):
        return None
    cast = shifted.a
    narrow = isinstance(cast, prim.Cast) and str(cast.value.ty.dtype).startswith("uint16")
    return cast.value if narrow else None


def round_bits(value: Any) -> Any:
    """The bits of the bfloat16 nearest to a float32, the even one of two; NaN stays NaN.

    The kernel has to bring the `functions` of its vectors' widths.
    """
    return tirx.call_intrin("uint16", _rounding(), value)


def functions(widths: Iterable[int], target: Target) -> str:
    """LLVM IR for `round_bits` on scalars (width 1) and vectors of these widths."""
    body = _INSTRUCTION if BF16 in target.features else _ARITHMETIC
    return "".join(_function(body, width) for width in sorted(set(widths)))


def _function(body: str, width: int) -> str:
    scalars = {"float": "float", "bfloat": "bfloat", "int": "i32", "short": "i16", "bit": "i1"}
    types = {
        name: f"<{width} x {scalar}>" if width > 1 else scalar for name, scalar in scalars.items()
    }
    for number in (1, _BITS, _QUIET, _HALF):
        lanes = ", ".join([f"i32 {number}"] * width)
        types[f"s{number}"] = f"<{lanes}>" if width > 1 else str(number)
    head = f"define {types['short']} @{_NAME}_{width}({types['float']} %x) alwaysinline nounwind"
    return f"{head} {{{body.format_map(types)}  ret {types['short']} %r\n}}\n"


@cache
def _rounding() -> Any:
    """TVM's operator, made when it is first used: TVM vectorises operators, but no calls."""
    operator = _ffi_api.RegisterOp(OPERATOR, "float32 to the bits of bfloat16")
    operator = tvm.ir.Op.get(OPERATOR) if operator is None else operator
    like = tvm.ir.Op.get("tirx.exp")
    for attribute in ("TCallEffectKind", "TVectorizable"):
        operator.set_attr(attribute, like.get_attr(attribute))
    tirx.op.register_intrin_lowering(OPERATOR, target="llvm", f=_lower)
    return operator


def _lower(call: Any) -> Any:
    dtype = str(call.ty.dtype)
    return tirx.call_extern(dtype, f"{_NAME}_{lanes_of(dtype)}", *call.args)
