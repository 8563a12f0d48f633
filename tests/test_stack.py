"""Accumulators stay on the stack, where LLVM makes registers of them."""

from typing import Any

import numpy as np
import pytest

from hybridc.compiler import contractions, target
from hybridc.compiler.build import compile_kernel
from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.dense import Dense

CPU = target.parse("cpu", threads=2)
POOL = "TVMBackendAllocWorkspace"


def dense(rows: int, depth: int, columns: int) -> PrimFunc:
    packed = contractions.pack_matrix(np.zeros((depth, columns), np.float32), CPU.lanes())
    func = contractions.dense((rows, depth), packed, columns, "float32")
    rule = Dense()
    match: Any = rule.match(func, CPU)
    return rule.schedule(match, rule.default(match, CPU)).mod["main"]


@pytest.mark.parametrize("rows", [1, 13, 128])
def test_a_product_takes_no_memory_from_the_pool(rows: int) -> None:
    source = compile_kernel(dense(rows, 64, 96), CPU).mod.inspect_source("ll")
    assert "fmul" in source or "fma" in source
    assert POOL not in source
