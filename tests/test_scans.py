"""Cumulative sums over drawn shapes, against numpy."""

from typing import Any

import numpy as np
import pytest
from cpus import CPUS
from drawn import drawn
from hypothesis import strategies as st
from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate


def cumulated(x: Any, axis: int, cpu: str, **options: Any) -> Any:
    """What the compiled operator makes of an array, and the names of its kernels."""
    builder = relax.BlockBuilder()
    data = relax.Var("x", relax.TensorType(x.shape, str(x.dtype)))
    with builder.function("main", [data]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.cumsum(data, axis, **options))
        builder.emit_func_output(y)
    context = Context(target.parse(cpu, threads=2), pipeline.rules())
    module = pipeline.run(pipeline.parse("legalize,fuse,schedule"), builder.finalize(), context)
    return evaluate(module, [x])[0], [var.name_hint for var in module.get_global_vars()]


@pytest.mark.parametrize("cpu", CPUS)
@drawn(
    12,
    60,
    shape=st.lists(st.sampled_from([1, 2, 3, 7, 8, 16, 24, 33]), min_size=1, max_size=4),
    place=st.integers(0, 3),
    dtype=st.sampled_from(["float32", "float32", "int32", "int64", "float64"]),
)
def test_of_any_shape(cpu: str, shape: list[int], place: int, dtype: str) -> None:
    axis = place % len(shape)
    x = (9 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)
    got, names = cumulated(x, axis, cpu)
    np.testing.assert_allclose(got, np.cumsum(x, axis, dtype), rtol=1e-4, atol=1e-4)
    assert "cumsum" in names


def test_a_long_one_takes_every_thread() -> None:
    x = np.random.default_rng(0).standard_normal((64, 40, 16)).astype("float32")
    for axis in (0, 1, 2):
        got, _ = cumulated(x, axis, "cpu")
        np.testing.assert_allclose(got, np.cumsum(x, axis), rtol=1e-3, atol=1e-4)


def test_what_is_summed_in_another_type_is_left_to_tvm() -> None:
    x = np.arange(12, dtype="int32").reshape(3, 4)
    got, _ = cumulated(x, 1, "cpu", dtype="float32")
    np.testing.assert_array_equal(got, np.cumsum(x, 1))
    got, _ = cumulated(x, 1, "cpu", exclusive=True)
    np.testing.assert_array_equal(got, np.cumsum(x, 1) - x)
