"""What a kernel computes and moves, before and after it is scheduled."""

import generic_kernels
import numpy as np
import pytest
import tvm
from tvm import te

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.kernels import kernel_cost
from hybridc.compiler.kernels.products import byte_packing, byte_windows, contractions, packing


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


@pytest.mark.parametrize(
    ("entries", "asked"), [(30_000, 6 * 5 * 33), (20, 20 * 33)], ids=["few", "more than there are"]
)
def test_of_a_table_only_what_is_looked_up_is_moved(entries: int, asked: int) -> None:
    kernel = generic_kernels.gathered_sums(entries, 33, 6, 5)
    assert kernel_cost.traffic(kernel) == 4 * (asked + 6 * 5 + 33)


def test_what_is_read_in_order_too_is_moved_whole() -> None:
    table, chosen = te.placeholder((100, 8), name="T"), te.placeholder((8,), "int32", name="I")
    total = te.compute((8,), lambda i: table[chosen[i], 0] + table[i, 1], name="total")
    kernel = te.create_prim_func([table, chosen, total])
    assert kernel_cost.traffic(kernel) == 4 * (100 * 8 + 8 + 8)
