"""What a kernel computes is the same before and after it is scheduled."""

import numpy as np
import tvm

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.kernels import byte_packing, byte_windows, contractions, kernel_cost, packing


def test_a_scheduled_kernel_tells_its_arithmetic() -> None:
    """Also where its rule has left no block that would, or several."""
    weight = np.clip(np.random.default_rng(0).normal(0, 38, (64, 32)), -127, 127).astype(np.int8)
    rows = byte_windows.dense((40, 64), byte_packing.pack(weight[np.newaxis]), 32, "uint8")
    packed = packing.pack_matrix(np.zeros((64, 32), np.float32), 8)
    wide = contractions.dense((40, 64), packed, 32, "float32")
    module = tvm.IRModule({"bytes": rows, "wide": wide})
    context = Context(target.parse("avx2", 2), pipeline.rules())
    scheduled = pipeline.run(pipeline.parse("schedule"), module, context)
    assert {record.rule for record in context.kernels} == {"byte-windows", "dense"}
    for name in ("bytes", "wide"):
        assert kernel_cost.flops(scheduled[name]) == 2 * 40 * 64 * 32
