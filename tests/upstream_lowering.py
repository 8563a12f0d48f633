"""What TVM's lowering makes of loop nests that is not what they say; see `upstream_defects`."""

from typing import Any

import numpy as np
import tvm
from tvm import relax, sym, tirx
from tvm_ffi import structural_walk

from hybridc.compiler.ir.evaluate import evaluate


def arrays_are_cut() -> bool:
    """An array is cut behind the last element whose address is taken."""
    array = tirx.decl_buffer([8], "float32", "array", scope="local")
    taken = tirx.address_of(tirx.BufferLoad(array, [tirx.const(4)]))
    call = tirx.Evaluate(tirx.call_extern("void", "reads_four", taken))
    func = tirx.PrimFunc([], tirx.SeqStmt([tirx.AllocBuffer(array), call]))
    cut = tvm.s_tir.transform.CompactBufferAllocation()(tvm.IRModule({"main": func}))
    sizes: list[int] = []
    structural_walk(
        cut["main"].body, (tirx.AllocBuffer, lambda made: sizes.append(int(made.buffer.shape[0])))
    )
    return sizes != [8]


def _simplified(expr: Any) -> str:
    return str(sym.Analyzer().simplify(expr))


def differences_cancel() -> bool:
    """`x + y - y` of float32 is taken for x."""
    x, y = (tirx.Var(name, "float32") for name in "xy")
    return _simplified(tirx.Sub(tirx.Add(x, y), y)) == "x"


def orders_are_total() -> bool:
    """`not x < y` of float32 is taken for `y <= x`, and `x == x` for true."""
    x, y = (tirx.Var(name, "float32") for name in "xy")
    return _simplified(tirx.Not(tirx.LT(x, y))) == "y <= x" and "True" in _simplified(tirx.EQ(x, x))


def an_order_with_itself_stays() -> bool:
    """`x <= x` of float32 is left alone; what asks for NaN relies on it."""
    x = tirx.Var("x", "float32")
    return _simplified(tirx.LE(x, x)) == "x <= x"


def extremes_forget_nan() -> bool:
    """The maximum of NaN and a number is the number."""
    builder = relax.BlockBuilder()
    x, y = (relax.Var(name, relax.TensorType((1,), "float32")) for name in "xy")
    with builder.function("main", [x, y]):
        builder.emit_func_output(builder.emit(relax.op.maximum(x, y)))
    (got,) = evaluate(
        builder.finalize(), [np.full(1, number, np.float32) for number in (np.nan, 1)]
    )
    return not bool(np.isnan(got).any())


def _evaluated(operator: str, constant: Any, x: Any) -> Any:
    """What plain TVM computes of x and a scalar constant."""
    builder = relax.BlockBuilder()
    given = relax.Var("x", relax.TensorType(x.shape, str(x.dtype)))
    with builder.function("main", [given]):
        made = getattr(relax.op, operator)(given, relax.const(constant, str(x.dtype)))
        builder.emit_func_output(builder.emit(made))
    (got,) = evaluate(builder.finalize(), [x])
    return got


def products_with_zero_are_zero() -> bool:
    """NaN times a constant 0 is 0."""
    return bool((_evaluated("multiply", 0.0, np.full(3, np.nan, np.float32)) == 0).all())


def unsigned_sums_do_not_wrap() -> bool:
    """Unsigned x plus the largest number is that number, as LLVM is told that nothing overflows."""
    largest = 2**32 - 1
    return bool((_evaluated("add", largest, np.full(3, 2, np.uint32)) == largest).all())
