"""Reductions of whole tensors, in parts that threads share, against numpy."""

from typing import Any

import numpy as np
import pytest
from cpus import CPUS
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import compiled
from tvm import relax
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_walk

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.schedules.loops import access

op: Any = relax.op
# Of more and of fewer elements than are worth two threads; some of them with no part for each.
SHAPES = [
    ((128, 768), None),
    ((1, 64, 28, 56), None),
    ((60_000,), None),
    ((3, 160, 161), [1, 2]),
    ((3, 160, 161), [-1, 0]),
    ((30_001, 3), [0]),
    ((30_000, 3), [0]),
    ((251, 257), None),
    ((40, 30), None),
    ((1, 5, 1, 12_000, 1), [1, 3]),
]


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    case=st.sampled_from(SHAPES),
    dtype=st.sampled_from(["float32", "float64", "int32", "int64", "int8", "uint8"]),
    keep=st.booleans(),
)
def test_whole_tensors(cpu: str, name: str, case: Any, dtype: str, keep: bool) -> None:
    shape, axes = case
    if name == "mean":
        dtype = "float32"
    if name == "sum" and dtype in ("int8", "uint8"):
        dtype = "int32"
    x = (np.random.default_rng(0).standard_normal(shape) * 9).astype(dtype)
    (got,), _ = compiled(lambda v: getattr(op, name)(v, axes, keep), x, cpu=cpu)
    wide = x.astype("float64") if dtype == "float32" else x
    wanted = getattr(np, name)(wide, None if axes is None else tuple(axes), keepdims=keep)
    assert got.shape == wanted.shape
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got, wanted.astype(dtype), rtol=1e-5, atol=1e-5 * x.size)


@pytest.mark.parametrize("name", ["max", "min", "sum"])
@pytest.mark.parametrize("place", [0, 31_000, 98_303])
def test_one_nan_is_the_result(name: str, place: int) -> None:
    x = np.random.default_rng(0).standard_normal((128, 768)).astype("float32")
    x.ravel()[place] = np.nan
    (got,), _ = compiled(getattr(op, name), x)
    assert np.isnan(got)


@pytest.mark.parametrize("name", ["max", "min"])
def test_infinities_are_extremes(name: str) -> None:
    x = np.full((128, 768), -np.inf if name == "max" else np.inf, np.float32)
    (got,), _ = compiled(getattr(op, name), x)
    assert got == x[0, 0]


def test_arithmetic_joins_the_parts() -> None:
    x = np.random.default_rng(0).standard_normal((200, 300)).astype("float32")
    (got,), _ = compiled(lambda v: op.sqrt(op.sum(op.multiply(v, v))), x)
    np.testing.assert_allclose(got, np.linalg.norm(x.astype("float64")), rtol=1e-5)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*[st.sampled_from([1, 2, 3])] * 2, *[st.sampled_from([2, 4, 7, 10, 28])] * 3),
    groups=st.booleans(),
)
def test_norms_of_volumes(shape: tuple[int, ...], groups: bool) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    scale, shift = np.linspace(1, 2, shape[1]), np.linspace(-1, 1, shape[1])
    operands = x, scale.astype("float32"), shift.astype("float32")

    def build(v: Any, s: Any, b: Any) -> Any:
        if groups:
            return op.nn.group_norm(v, s, b, 1, 1, [2, 3, 4], 1e-5)
        return op.nn.instance_norm(v, s, b, 1, [2, 3, 4], 1e-5)

    (got,), _ = compiled(build, *operands)
    axes = (1, 2, 3, 4) if groups else (2, 3, 4)
    wide = x.astype("float64")
    normal = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)
    of_channel = [each.reshape(-1, 1, 1, 1) for each in (scale, shift)]
    np.testing.assert_allclose(got, normal * of_channel[0] + of_channel[1], rtol=1e-4, atol=1e-4)


def test_fused_axes_leave_no_divisions() -> None:
    """With them, vectors would be loaded lane by lane."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 32, 10, 28, 28), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            scale = relax.const(np.ones(32, "float32"), "float32")
            norm = op.nn.instance_norm(x, scale, scale, 1, [2, 3, 4], 1e-5)
            y = builder.emit_output(builder.normalize(norm))
        builder.emit_func_output(y)
    context = Context(target.parse("cpu", threads=2), pipeline.rules())
    module = pipeline.run(pipeline.parse("legalize,fuse,schedule"), builder.finalize(), context)
    (kernel,) = (f for v, f in module.functions_items() if v.name_hint == "group_norm")
    divisions: list[Any] = []

    def visit(load: Any) -> None:
        for index in load.indices:
            structural_walk(index, (access.DIVISIONS, divisions.append))

    structural_walk(kernel.body, (TensorLoad, visit))
    assert not divisions
