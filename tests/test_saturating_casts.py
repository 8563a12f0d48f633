"""Rounding by an addition gives the integers of rounding, limits and ties included."""

import numpy as np
import pytest
import tvm
from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate

_PASSES = "integer-arithmetic,legalize,fuse,schedule"


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("zero", [0, 1, 7, 100])
def test_ties_and_limits(dtype: str, zero: int) -> None:
    limits = np.iinfo(dtype)
    halves = np.arange(2 * limits.min - 9, 2 * limits.max + 9, dtype="float32") / 2
    large = np.array([1e6, -1e6, 4e6, 1e9, -1e9, 3e38, -3e38, np.inf, -np.inf], "float32")
    data = np.concatenate([halves, np.nextafter(halves, np.float32(np.inf)), large])
    x = relax.Var("x", relax.TensorType(data.shape, "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            scale = relax.const(np.float32(1))
            point = relax.const(tvm.runtime.tensor(np.asarray(zero, dtype)), dtype)
            y = builder.emit_output(relax.op.quantize(x, scale, point, out_dtype=dtype))
        builder.emit_func_output(y)
    context = Context(target.parse("cpu"), pipeline.rules())
    plain = pipeline.run(pipeline.parse(_PASSES), builder.finalize(), context)
    short = pipeline.run(pipeline.parse("saturating-casts"), plain, context)
    assert short is not plain
    got = evaluate(short, [data])[0]
    wanted = np.clip(np.rint(data) + zero, limits.min, limits.max).astype(dtype)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(evaluate(plain, [data])[0], wanted)
