"""A long chain of elementwise operators becomes kernels of a bounded size and expression."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import relax
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_walk

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate

LENGTH, MOST = 120, 48


def test_a_long_chain_is_cut() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((5,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for _ in range(LENGTH // 2):
                value = builder.emit(relax.op.multiply(value, relax.const(0.5, "float32")))
                value = builder.emit(relax.op.add(value, x))
            result = builder.emit_output(value)
        builder.emit_func_output(result)
    steps = pipeline.parse("legalize,fuse")
    module = pipeline.run(steps, builder.finalize(), Context(target.parse("cpu", threads=1)))
    sizes = [
        func.script().count("with T.sblock(") - 1
        for _, func in module.functions_items()
        if not isinstance(func, relax.Function)
    ]
    assert len(sizes) > 1
    assert sum(sizes) == LENGTH
    assert max(sizes) <= MOST
    given = np.arange(5, dtype=np.float32)
    np.testing.assert_allclose(evaluate(module, [given])[0], given * 2, rtol=1e-5)


def decided(value: Any) -> Any:
    """What a value becomes that is compared, and chosen again itself."""
    scaled = relax.op.multiply(value, relax.const(0.9, "float32"))
    return relax.op.where(relax.op.greater(value, relax.const(0.5, "float32")), scaled, value)


def gated(value: Any) -> Any:
    return relax.op.multiply(value, relax.op.sigmoid(value))


def chain(step: Callable[[Any], Any], length: int) -> Any:
    """A module in which a step is done again and again."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((40,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for _ in range(length):
                value = builder.emit(builder.normalize(step(value)))
            result = builder.emit_output(value)
        builder.emit_func_output(result)
    return builder.finalize()


@pytest.mark.parametrize(
    ("step", "by_numpy"),
    [
        (decided, lambda x: np.where(x > np.float32(0.5), x * np.float32(0.9), x)),
        (gated, lambda x: x / (1 + np.exp(-x))),
    ],
)
def test_expressions_of_values_that_are_read_again_stay_short(step: Any, by_numpy: Any) -> None:
    context = Context(target.parse("cpu", threads=2), pipeline.rules())
    module = pipeline.run(pipeline.parse("legalize,fuse,schedule"), chain(step, 16), context)
    loads: list[Any] = []
    for _, func in module.functions_items():
        if not isinstance(func, relax.Function):
            structural_walk(func.body, (TensorLoad, loads.append))
    assert len(loads) < 400
    x = np.random.default_rng(0).standard_normal(40).astype(np.float32)
    x[:3] = [np.nan, -0.0, np.inf]
    wanted = x
    for _ in range(16):
        wanted = by_numpy(wanted)
    np.testing.assert_allclose(evaluate(module, [x])[0], wanted, rtol=1e-4, atol=1e-6)


def squashed(value: Any) -> Any:
    return relax.op.tanh(relax.op.multiply(value, relax.const(1.5, "float32")))


def test_functions_of_functions_are_few_in_a_kernel() -> None:
    steps, context = pipeline.parse("legalize,fuse"), Context(target.parse("cpu", threads=1))
    module = pipeline.run(steps, chain(squashed, 16), context)
    counts = [
        func.script().count("T.tanh(")
        for _, func in module.functions_items()
        if not isinstance(func, relax.Function)
    ]
    assert max(counts) == 3
    x = wanted = np.random.default_rng(0).standard_normal(40).astype(np.float32)
    for _ in range(16):
        wanted = np.tanh(np.float32(1.5) * wanted)
    np.testing.assert_allclose(evaluate(module, [x])[0], wanted, rtol=1e-4, atol=1e-6)


def halved_error(value: Any) -> Any:
    return relax.op.multiply(relax.op.erf(value), relax.const(0.5, "float32"))


def test_functions_that_no_vector_has_are_not_called_on_vectors() -> None:
    steps = pipeline.parse("legalize,fuse,schedule,allocate,fast-math,plan-memory")
    context = Context(target.parse("cpu", threads=1), pipeline.rules())
    x = np.random.default_rng(0).standard_normal(40).astype(np.float32)
    (got,) = evaluate(pipeline.run(steps, chain(halved_error, 6), context), [x])
    wanted = x.tolist()
    for _ in range(6):
        wanted = [math.erf(value) / 2 for value in wanted]
    np.testing.assert_allclose(got, wanted, 1e-5)


def test_what_is_compared_once_is_not_stored() -> None:
    steps = pipeline.parse("legalize,fuse")
    module = pipeline.run(steps, chain(decided, 1), Context(target.parse("cpu", threads=1)))
    assert sum(not isinstance(func, relax.Function) for _, func in module.functions_items()) == 1
