"""Accumulators stay on the stack, where LLVM makes registers of them."""

from typing import Any

import numpy as np
import pytest
import tvm
from kernel_builders import floats, op, operator
from tvm import te, tirx

from hybridc.compiler import settings, target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.building.stack import TIR_PIPELINE
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.products import contractions, packing
from hybridc.schedules.cuda_fallback import CudaFallback
from hybridc.schedules.dense import Dense

CPU = target.parse("cpu", threads=2)
POOL = "TVMBackendAllocWorkspace"


def dense(rows: int, depth: int, columns: int) -> PrimFunc:
    packed = packing.pack_matrix(np.zeros((depth, columns), np.float32), CPU.lanes())
    func = contractions.dense((rows, depth), packed, columns, "float32")
    rule = Dense()
    match: Any = rule.match(func, CPU)
    return rule.schedule(match, rule.default(match, CPU)).mod["main"]


@pytest.mark.parametrize("rows", [1, 13, 128])
def test_a_product_takes_no_memory_from_the_pool(rows: int) -> None:
    source = compile_kernel(dense(rows, 64, 96), CPU).mod.inspect_source("ll")
    assert "fmul" in source or "fma" in source
    assert POOL not in source


def test_what_a_gpus_kernels_hand_on_lies_in_its_memory() -> None:
    """Maxima of 37 rows are small enough for a stack, which is the host's."""
    gpu = target.parse("sm_90a", threads=1)
    (func,) = operator(lambda x: op.nn.softmax(x, -1), *floats([37, 1000]))(gpu)
    rule = CudaFallback()
    made = rule.schedule(rule.match(func, gpu), {"threads": 256}).mod["main"]
    module = tvm.IRModule({"main": made.with_attr("global_symbol", "main")})
    with settings.cuda_kept_as_source():
        built = tvm.compile(module, target=gpu.tvm, tir_pipeline=TIR_PIPELINE)
    source = built.mod.inspect_source("ll")
    assert source.count(f"load ptr, ptr @__{POOL}") == 2
    assert "alloca [37 x float]" not in source


def test_a_rounding_within_a_sum_is_vectorised() -> None:
    x = te.placeholder((32,), "float32", "x")
    func = te.create_prim_func([x, te.compute((32,), lambda i: tirx.nearbyint(x[i]) + 1.0)])
    schedule = tvm.s_tir.Schedule(func)
    (loop,) = schedule.get_loops("compute")
    schedule.vectorize(schedule.split(loop, [None, 16])[1])
    source = compile_kernel(schedule.mod["main"], CPU).mod.inspect_source("ll")
    assert "nearbyint.v16f32" in source
    assert "nearbyint.f32" not in source
