"""Operators on types that TVM cannot generate code for, compiled; the oracle is numpy."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.building.build import build
from hybridc.compiler.errors import PassError
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.model import Array

RNG = np.random.default_rng(0)
BITS = [RNG.integers(0, 2, (3, 300)).astype(bool) for _ in range(2)]
INTEGERS = [RNG.integers(low, 6, (3, 37)) for low in (-9, 0)]
HALVES = [RNG.uniform(-1, 1, (3, 37)).astype("float16")]
BRAINS = [np.array([0, 1, np.nan, np.inf, -np.inf, -3e38] * 7, ml_dtypes.bfloat16)]
op: Any = relax.op

CASES: list[tuple[str, Callable[..., Any], Callable[..., Any], list[Array]]] = [
    ("equal bits", op.equal, np.equal, BITS),
    ("unequal bits", op.not_equal, np.not_equal, BITS),
    ("smaller bits", op.less, np.less, BITS),
    ("sum of bits", op.add, np.add, BITS),
    ("product of bits", op.multiply, np.multiply, BITS),
    ("larger bits", op.maximum, np.maximum, BITS),
    ("any of bits", lambda x, y: op.sum(x, 1), lambda x, y: x.any(1), BITS),
    ("all of bits", lambda x, y: op.min(x, 1), lambda x, y: x.all(1), BITS),
    ("first of bits", lambda x, y: op.argmax(x, 1), lambda x, y: x.argmax(1), BITS),
    ("power", op.power, np.power, INTEGERS),
    (
        "short power",
        lambda x, y: op.power(op.astype(x, "int32"), op.astype(y, "int32")),
        lambda x, y: np.power(x.astype("int32"), y.astype("int32")),
        INTEGERS,
    ),
    ("arc tangent", op.atan, np.arctan, HALVES),
    ("no number", op.isnan, np.isnan, BRAINS),
    ("infinite", op.isinf, np.isinf, BRAINS),
    ("finite", op.isfinite, np.isfinite, BRAINS),
]


def module_of(build_call: Callable[..., Any], arrays: list[Array]) -> Any:
    builder = relax.BlockBuilder()
    inputs = [
        relax.Var(f"x{i}", relax.TensorType(array.shape, str(array.dtype)))
        for i, array in enumerate(arrays)
    ]
    with builder.function("main", inputs):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(build_call(*inputs)))
        builder.emit_func_output(result)
    return builder.finalize()


@pytest.mark.parametrize(("name", "call", "oracle", "arrays"), CASES, ids=[c[0] for c in CASES])
def test_the_answer_is_numpys(
    name: str, call: Callable[..., Any], oracle: Callable[..., Any], arrays: list[Array]
) -> None:
    cpu = target.parse("cpu", threads=1)
    steps = pipeline.parse("widen-types,legalize,fuse,schedule")
    module = pipeline.run(steps, module_of(call, arrays), Context(cpu, pipeline.rules()))
    (got,) = evaluate(module, arrays)
    wanted = oracle(*arrays)
    assert got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=2e-3)


def test_code_that_cannot_be_generated_is_one_line() -> None:
    module = module_of(op.less, [np.ones(40, "bool")] * 2)
    cpu = target.parse("cpu", threads=1)
    steps = pipeline.parse("legalize,schedule,allocate,plan-memory")
    ready = pipeline.run(steps, module, Context(cpu, pipeline.rules()))
    with pytest.raises(PassError, match=r"^no code can be generated: \w+: [^\n]*$"):
        build(ready, cpu)
