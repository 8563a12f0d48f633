"""Elements of less than a byte: inputs, outputs, weights and casts, against ml_dtypes and ONNX."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_models import FLOAT, build, call, node, noise

import hybridc
from hybridc.compiler.errors import ModelError

KINDS = {"INT2": "int2", "INT4": "int4", "UINT2": "uint2", "UINT4": "uint4"}
FLOAT4 = "FLOAT4E2M1"
EVERY = {**KINDS, FLOAT4: "float4_e2m1fn"}
OPSET = 25


def number(kind: str) -> int:
    return int(getattr(TensorProto, kind))


def numpy_type(kind: str) -> Any:
    return np.dtype(getattr(ml_dtypes, EVERY[kind]))


def values(kind: str) -> Any:
    """All numbers of a type."""
    whole = numpy_type(kind)
    spread = np.arange(-16, 16) if kind in KINDS else np.linspace(-6, 6, 49)
    return np.unique(spread.astype(np.float32).astype(whole).astype(np.float32)).astype(whole)


def cast(given: int, to: int, shape: Any, **options: Any) -> Any:
    nodes = [node("Cast", "x", "y", to=to)]
    return build(nodes, [("x", given, shape)], [("y", to, None)], opset=OPSET, **options)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("given", ["FLOAT", "FLOAT16"])
def test_casts_wrap_or_round_as_onnx_says(kind: str, given: str) -> None:
    x = np.concatenate([np.arange(-20, 20, 0.25), [0.1, -0.1, 5.1, -5.1, -0.0]])
    if kind == FLOAT4:
        x = np.concatenate([x, [np.nan, np.inf, -np.inf, 1e4]])
    x = x.astype(helper.tensor_dtype_to_np_dtype(number(given)))
    (y,) = call(cast(number(given), number(kind), x.shape), x)
    with np.errstate(invalid="ignore"):
        right = (x if kind == FLOAT4 else np.rint(x)).astype(numpy_type(kind))
    assert y.dtype == right.dtype
    np.testing.assert_array_equal(y.view(np.uint8), right.view(np.uint8))


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("to", ["FLOAT", "FLOAT16", "INT8", "INT64"])
def test_every_number_comes_back(kind: str, to: str) -> None:
    if kind == FLOAT4 and to.startswith("INT"):
        pytest.skip("rounds")
    x = values(kind)
    (y,) = call(cast(number(kind), number(to), x.shape), x)
    np.testing.assert_array_equal(y, x.astype(y.dtype))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_casts_between_them_keep_the_lower_bits(kind: str, other: str) -> None:
    x = values(kind)
    # ml_dtypes, and so ONNX's reference, knows no such casts.
    (y,) = call(cast(number(kind), number(other), x.shape), x, verify="off")
    np.testing.assert_array_equal(
        y.view(np.uint8), x.astype(np.int8).astype(numpy_type(other)).view(np.uint8)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_moves_elements_needs_no_cast(kind: str) -> None:
    x = np.resize(values(kind), (2, 6))
    nodes = [node("Transpose", "x", "t"), node("Reshape", "t s", "y")]
    model = build(
        nodes,
        [("x", number(kind), (2, 6))],
        [("y", number(kind), None)],
        {"s": np.array([3, 4])},
        opset=OPSET,
    )
    (y,) = call(model, x)
    np.testing.assert_array_equal(y, x.T.reshape(3, 4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_axis", [False, True])
def test_quantised(kind: str, per_axis: bool) -> None:
    """There and back, with a zero point of the type."""
    x = 3 * noise(3, 5)
    scale = np.array([0.5, 1, 2, 0.25, 0.7], np.float32) if per_axis else np.float32(0.5)
    point = np.ones(np.shape(scale), numpy_type(kind))
    nodes = [
        node("QuantizeLinear", "x s z", "q", axis=1),
        node("DequantizeLinear", "q s z", "y", axis=1),
    ]
    model = build(
        nodes,
        [("x", FLOAT, x.shape)],
        [("q", number(kind), None), ("y", FLOAT, None)],
        {"s": scale, "z": point},
        opset=OPSET,
    )
    got = call(model, x)
    for value, right in zip(got, ReferenceEvaluator(model).run(None, {"x": x}), strict=True):
        np.testing.assert_array_equal(value.astype(np.float32), right.astype(np.float32))


def test_weights_of_four_bits_in_blocks(tmp_path: Path) -> None:
    """Read from a file; large ones are set apart from the graph."""
    weights = np.random.default_rng(3).integers(-8, 8, (512, 256)).astype(ml_dtypes.int4)
    scale = (np.random.default_rng(4).random((16, 256)) / 32).astype(np.float32)
    nodes = [
        node("DequantizeLinear", "w s", "d", axis=0, block_size=32),
        node("MatMul", "x d", "y"),
    ]
    given = [("x", FLOAT, (3, 512))]
    model = build(nodes, given, [("y", FLOAT, None)], {"w": weights, "s": scale}, opset=OPSET)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    x = noise(3, 512)
    (y,) = call(path, x)
    right = x @ (weights.astype(np.float32) * scale.repeat(32, axis=0))
    np.testing.assert_allclose(y, right, rtol=1e-3, atol=1e-3)


def test_in_a_branch_that_the_data_chooses() -> None:
    """Compiled code and ONNX Runtime see the carriers alike."""
    inner = helper.make_tensor_value_info("t", FLOAT, [4])
    then = helper.make_graph([node("Cast", "q", "t", to=FLOAT)], "then", [], [inner])
    other = helper.make_graph([node("Neg", "x", "t")], "else", [], [inner])
    nodes = [
        node("Cast", "x", "q", to=TensorProto.INT4),
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Greater", "sum zero", "cond"),
        node("If", "cond", "y", then_branch=then, else_branch=other),
    ]
    model = build(
        nodes, [("x", FLOAT, [4])], [("y", FLOAT, [4])], {"zero": np.float32(0)}, opset=OPSET
    )
    for x in ([1.6, 9, -3, 2], [-1.6, -9, 3, 2]):
        given = np.array(x, np.float32)
        (y,) = call(model, given)
        whole = np.rint(given).astype(ml_dtypes.int4).astype(np.float32)
        right = whole if sum(x) > 0 else -given
        np.testing.assert_array_equal(y, right)


def test_bits_of_another_type_are_refused() -> None:
    nodes = [node("BitCast", "x", "y", to=number(FLOAT4))]
    given, made = [("x", number("INT4"), (4,))], [("y", number(FLOAT4), None)]
    model = build(nodes, given, made, opset=26)
    with pytest.raises(ModelError, match="BitCast of int4 to float4_e2m1fn"):
        hybridc.compile(model)
