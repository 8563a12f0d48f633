"""Maxima and minima of nothing but infinities, however they are scheduled; the oracle is numpy."""

from typing import Any

import numpy as np
import pytest
from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate

STEPS = pipeline.parse("legalize,fuse,schedule,start-at-infinity")


def reduced(name: str, shape: tuple[int, ...], axis: int) -> Any:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(getattr(relax.op, name)(x, [axis]))
        builder.emit_func_output(result)
    cpu = target.parse("cpu", threads=2)
    return pipeline.run(STEPS, builder.finalize(), Context(cpu, pipeline.rules()))


@pytest.mark.parametrize("shape", [(3, 7), (3, 128), (4, 197), (1, 17), (40, 33, 5), (6, 1)])
def test_extrema_of_infinities_are_infinite(shape: tuple[int, ...]) -> None:
    x = np.full(shape, -np.inf, np.float32)
    x.flat[0] = np.finfo(np.float32).min
    for axis in range(len(shape)):
        for name, values in (("max", x), ("min", -x)):
            (got,) = evaluate(reduced(name, shape, axis), [values])
            np.testing.assert_array_equal(got, getattr(values, name)(axis))
