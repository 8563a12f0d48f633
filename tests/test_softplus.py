"""Mish as exporters write it in pieces, against float64, where exponentials overflow too."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.ir.rewrite import calls

op: Any = relax.op
ONE, ZERO = relax.const(1.0, "float32"), relax.const(0.0, "float32")


def stable(x: Any) -> Any:
    """As ONNX's converter writes a softplus."""
    return op.add(op.log(op.add(op.exp(op.negative(op.abs(x))), ONE)), op.maximum(x, ZERO))


def plain(x: Any) -> Any:
    """As it is defined."""
    return op.log(op.add(ONE, op.exp(x)))


@pytest.mark.parametrize("softplus", [stable, plain, op.nn.softplus])
def test_of_any_size(softplus: Callable[[Any], Any]) -> None:
    edges = [np.inf, -np.inf, np.nan, 0.0, -0.0, 19.99, 20.01, 88.0, 3e38, -3e38]
    x = np.concatenate([np.linspace(-60, 60, 4001), edges]).astype("float32")
    builder = relax.BlockBuilder()
    data = relax.Var("x", relax.TensorType(x.shape, "float32"))
    with builder.function("main", [data]):
        with builder.dataflow():
            y = builder.emit_output(op.tanh(softplus(data)))
        builder.emit_func_output(y)
    context = Context(target.parse("cpu"), pipeline.rules())
    passes = "simplify-inference,legalize,fuse,schedule,fast-math,propagate-nan"
    simplified = pipeline.run(pipeline.parse("simplify-inference"), builder.get(), context)
    assert not calls(simplified, "log")
    got = evaluate(pipeline.run(pipeline.parse(passes), builder.get(), context), [x])[0]
    with np.errstate(all="ignore"):
        right = np.tanh(np.logaddexp(0, x.astype("float64")))
    np.testing.assert_allclose(got, right, rtol=1e-6, atol=1e-37)


def test_another_slope_is_left_alone() -> None:
    builder = relax.BlockBuilder()
    data = relax.Var("x", relax.TensorType((8,), "float32"))
    with builder.function("main", [data]):
        with builder.dataflow():
            y = builder.emit_output(op.tanh(op.nn.softplus(data, 2.0)))
        builder.emit_func_output(y)
    module = builder.get()
    simplify = pipeline.parse("simplify-inference")
    assert pipeline.run(simplify, module, Context(target.parse("cpu"))) is module
