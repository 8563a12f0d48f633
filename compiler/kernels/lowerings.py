"""Loop nests for operators whose lowering in TVM is not accurate enough.

Each function fits `relax.transform.LegalizeOps`: it takes a block builder and a call, and returns
the expression that takes the call's place.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, tirx

Expr = Any  # tvm.relax.Expr
Tensor = Any  # tvm.te.Tensor

# The integer as wide as each type of IEEE 754, and infinity as that integer.
_INFINITY = MappingProxyType(
    {
        dtype: (integer, int(np.array(np.inf, dtype).view(integer)))
        for dtype, integer in (("float16", "int16"), ("float32", "int32"), ("float64", "int64"))
    }
)

# Rows of so few elements make no vectors, and a loop for each costs more than remainders.
_SHORT = 8
# TVM's kind of operator that is joined with no other.
_OPAQUE = 8


def tile(builder: Any, call: Any) -> Expr:
    """Lower `relax.tile` of fixed sizes as a broadcast, whose rows are neighbours in memory.

    TVM takes remainders of the places in the result, which no vector does.
    """
    data, repeats = call.args[0], [int(count) for count in call.attrs.repeats]
    if not _static(data) or 0 in _shape(data) or not all(repeats):
        return _by_tvm(builder, call)
    rank = max(len(repeats), len(_shape(data)))
    extents = [1] * (rank - len(_shape(data))) + _shape(data)
    repeats = [1] * (rank - len(repeats)) + repeats
    pairs = list(zip(repeats, extents, strict=True))
    if rank == 0 or (repeats[-1] > 1 and extents[-1] < _SHORT):
        return _by_tvm(builder, call)

    def kernel(x: Tensor) -> Tensor:
        shape = [size for pair in pairs for size in pair]
        return te.compute(shape, lambda *i: x(*i[1::2]), name="tiled")

    whole = builder.emit(relax.op.reshape(data, extents))
    # Joined with the reshape behind it, it would take remainders again.
    alone = {"op_pattern": _OPAQUE}
    tiled = builder.emit(
        builder.call_te(kernel, whole, primfunc_name_hint="tile", primfunc_attrs=alone)
    )
    return relax.op.reshape(tiled, [count * extent for count, extent in pairs])


def isnan(builder: Any, call: Any) -> Expr:
    """Lower `relax.isnan` as a comparison of bits, which vectorises as TVM's call does not."""
    return _by_bits(builder, call, lambda magnitude, infinity: magnitude > infinity)


def isinf(builder: Any, call: Any) -> Expr:
    """Lower `relax.isinf` as a comparison of bits."""
    return _by_bits(builder, call, lambda magnitude, infinity: magnitude.equal(infinity))


def isfinite(builder: Any, call: Any) -> Expr:
    """Lower `relax.isfinite` as a comparison of bits."""
    return _by_bits(builder, call, lambda magnitude, infinity: magnitude < infinity)


def with_constant(function: Callable[..., Tensor]) -> Callable[[Any, Any], Expr]:
    """Lower an operator of two operands, one of which may be a constant that misleads.

    TVM writes scalars into loop nests.  There it takes 0 * x and 0 / x for 0, which are NaN if x
    is; and LLVM is told that sums and products of integers do not overflow, so that it takes
    x + 4294967295 for 4294967295.  Such a constant stays a tensor.
    """

    def lower(builder: Any, call: Any) -> Expr:
        if not any(map(_misleads, call.args)):
            return _by_tvm(builder, call)
        return builder.call_te(function, *call.args, primfunc_name_hint=function.__name__)

    return lower


def _misleads(operand: Expr) -> bool:
    """Whether an operand is a float 0, or an integer of more than half of its range."""
    value: Any = getattr(operand, "value", None)  # of a constant
    if not isinstance(value, tvm.runtime.Tensor) or tuple(value.shape):
        return False
    number = value.numpy()
    if number.dtype.kind in "iu":
        return abs(int(number)) > np.iinfo(number.dtype).max // 2
    return number.dtype.kind == "f" and bool(number == 0)


def _by_bits(builder: Any, call: Any, compare: Callable[[Any, Any], Any]) -> Expr:
    """Compare the bits of a number without its sign with those of infinity."""
    dtype = str(call.args[0].ty.dtype)
    if dtype not in _INFINITY:
        return _by_tvm(builder, call)
    integer, infinity = _INFINITY[dtype]

    def element(x: Any) -> Any:
        unsigned = tirx.const(int(np.iinfo(integer).max), integer)
        magnitude = tirx.bitwise_and(tirx.reinterpret(integer, x), unsigned)
        return compare(magnitude, tirx.const(infinity, integer))

    def kernel(x: Tensor) -> Tensor:
        return te.compute(x.shape, lambda *i: element(x(*i)), name="classified")

    name = str(call.op.name).rsplit(".", 1)[-1]
    return builder.call_te(kernel, call.args[0], primfunc_name_hint=name)


def _by_tvm(builder: Any, call: Any) -> Expr:
    return call.op.get_attr("FLegalize")(builder, call)


def _static(data: Expr) -> bool:
    shape = data.ty.shape
    return shape is not None and all(isinstance(e, tirx.IntImm) for e in shape.values)


def _shape(data: Expr) -> list[int]:
    return [int(extent) for extent in data.ty.shape.values]
