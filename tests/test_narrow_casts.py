"""Casts from and to floats of 8 bits, against the functions with which ONNX defines them."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.runtime.session import InferenceSession

NARROW = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")


def kind(name: str) -> Any:
    return np.dtype(getattr(ml_dtypes, name, name))


def compare(x: Any, nodes: list[Any], names: list[str]) -> None:
    """Outputs of casts of x, bit by bit; of NaN there may be several."""
    outputs = [
        helper.make_tensor_value_info(
            f"y{i}", helper.np_dtype_to_tensor_dtype(kind(name)), list(x.shape)
        )
        for i, name in enumerate(names)
    ]
    given = [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)]
    graph = helper.make_graph(nodes, "casts", given, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=12)
    with np.errstate(all="ignore"):
        wanted = ReferenceEvaluator(model).run(None, {"x": x})
    artifact = driver.compile_source(
        model, Options(verify="off", threads=1, fallback=False)
    ).artifact
    for value, right in zip(InferenceSession(artifact, 1).run(None, {"x": x}), wanted, strict=True):
        assert value.dtype == right.dtype
        same = value.view(f"uint{8 * value.itemsize}") == right.view(f"uint{8 * value.itemsize}")
        both = np.isnan(value.astype(np.float64)) & np.isnan(right.astype(np.float64))
        assert (same | both).all(), (value[~(same | both)][:5], right[~(same | both)][:5])


@pytest.mark.parametrize("source", ["float32", "float16"])
def test_rounding_to_narrow_floats(source: str) -> None:
    draw = np.random.default_rng(0)
    numbers = [getattr(ml_dtypes, name)(0) for name in NARROW]
    every = [np.arange(256, dtype=np.uint8).view(n.dtype).astype(np.float32) for n in numbers]
    exact = np.concatenate(every)
    between = (exact[:-1] + exact[1:]) / 2  # ties
    with np.errstate(all="ignore"):
        near = np.concatenate([np.nextafter(between, s * np.float32(np.inf)) for s in (1, -1)])
        wild = np.exp(draw.uniform(-30, 30, 999)).astype(np.float32)
        rest = np.array([0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 3e38], np.float32)
        x = np.concatenate([exact, between, near, wild, -wild, rest]).astype(source)
    nodes, names = [], []
    for name in NARROW:
        to = helper.np_dtype_to_tensor_dtype(kind(name))
        for saturate in (0, 1):
            nodes.append(
                helper.make_node("Cast", ["x"], [f"y{len(nodes)}"], to=to, saturate=saturate)
            )
            names.append(name)
    compare(x, nodes, names)


@pytest.mark.parametrize("source", NARROW)
def test_every_narrow_number(source: str) -> None:
    x = np.arange(256, dtype=np.uint8).view(kind(source))
    names = ["float32", "float16", "float64", "bfloat16"]
    nodes = [
        helper.make_node("Cast", ["x"], [f"y{i}"], to=helper.np_dtype_to_tensor_dtype(kind(name)))
        for i, name in enumerate(names)
    ]
    compare(x, nodes, names)


def test_a_cast_that_would_round_twice_is_left_to_others() -> None:
    to = onnx.TensorProto.FLOAT8E5M2
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=to)],
        "g",
        [value("x", onnx.TensorProto.DOUBLE, [3])],
        [value("y", to, [3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = np.array([1.0, 1.1250000001, -3.0])
    artifact = driver.compile_source(model, Options(verify="off", threads=1)).artifact
    (got,) = InferenceSession(artifact, 1).run(None, {"x": x})
    np.testing.assert_array_equal(got, x.astype(ml_dtypes.float8_e5m2))
    assert artifact.regions
