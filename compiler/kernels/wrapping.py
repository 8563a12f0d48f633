"""Sums, differences and products of integers that wrap, as numpy's and ONNX's do.

TVM tells LLVM of integers of 32 bits and more that they do not overflow, signed or not, and takes
that for granted as it simplifies, of narrower ones without a sign as well.  Here they are operators
of ours, of which TVM knows nothing, and functions in LLVM IR, which become the same instructions.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.op import _ffi_api
from tvm.ir.prim import expr as prim

# What stands for an operator.
OPERATORS: Mapping[type, str] = MappingProxyType(
    {prim.Add: "add", prim.Sub: "sub", prim.Mul: "mul"}
)
KINDS = frozenset({"int32", "int64", "uint8", "uint16", "uint32", "uint64"})
_PREFIX = "hybridc_wrapping_"


def wrapped(kind: type, a: Any, b: Any) -> Any:
    """The operator on two integers that wraps; the kernel has to bring the `functions`."""
    return tirx.call_intrin(str(a.ty.dtype), _operator(OPERATORS[kind]), a, b)


def functions(widths: Iterable[int]) -> str:
    """LLVM IR for scalars (width 1) and vectors of these widths."""
    return "".join(
        _function(name, bits, width)
        for name in OPERATORS.values()
        for bits in (8, 16, 32, 64)
        for width in sorted(set(widths))
    )


def _function(name: str, bits: int, width: int) -> str:
    kind = f"<{width} x i{bits}>" if width > 1 else f"i{bits}"
    head = f"define {kind} @{_PREFIX}{name}_{bits}_{width}({kind} %a, {kind} %b)"
    return f"{head} alwaysinline nounwind {{\n  %r = {name} {kind} %a, %b\n  ret {kind} %r\n}}\n"


@cache
def _operator(name: str) -> Any:
    """TVM's operator, made when it is first used: TVM vectorises operators, but no calls."""
    full = f"tirx.{_PREFIX}{name}"
    operator = _ffi_api.RegisterOp(full, f"{name} of integers that wraps")
    operator = tvm.ir.Op.get(full) if operator is None else operator
    like = tvm.ir.Op.get("tirx.exp")
    for attribute in ("TCallEffectKind", "TVectorizable"):
        operator.set_attr(attribute, like.get_attr(attribute))

    def lower(call: Any) -> Any:
        dtype = call.ty.dtype
        return tirx.call_extern(
            str(dtype), f"{_PREFIX}{name}_{int(dtype.bits)}_{int(dtype.lanes)}", *call.args
        )

    tirx.op.register_intrin_lowering(full, target="llvm", f=lower)
    return operator
