"""Quantised models compute what ONNX Runtime computes, within one quantisation step."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import FLOAT, build, node, noise

from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.driver import compile_source
from hybridc.compiler.frontends.onnx_reference import OnnxReference
from hybridc.compiler.runtime.session import InferenceSession

UINT8, INT8, INT32 = TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32


def integers(low: int, high: int, *shape: int, dtype: str = "int8") -> Any:
    return np.random.default_rng(3).integers(low, high, shape).astype(dtype)


def agree(model: Any, feed: dict[str, Any], steps: float = 1.0) -> Any:
    """Compile a model, and see that its outputs are ONNX Runtime's."""
    return run_both(model, feed, steps, compile_source(model, Options(verify="off")))


def run_both(model: Any, feed: dict[str, Any], steps: float, outcome: Any) -> Any:
    """A compiled model's outputs are ONNX Runtime's, give or take some quantisation steps."""
    reference = OnnxReference(model)
    for got, wanted in zip(
        InferenceSession(outcome.artifact).run(None, feed), reference(feed), strict=True
    ):
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        difference = np.abs(got.astype("float64") - wanted.astype("float64"))
        assert difference.max(initial=0) <= steps * 1.001
        # A tie that falls to the other side is rare.
        assert np.mean(difference > 0.01 * steps) < 0.05
    return outcome


def quantized(x: str, y: str, scale: str = "s", zero: str = "z") -> list[Any]:
    return [
        node("QuantizeLinear", f"{x} {scale} {zero}", f"{y}_q"),
        node("DequantizeLinear", f"{y}_q {scale} {zero}", y),
    ]


def convolution(
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    *,
    signed: bool = False,
    per_channel: bool = True,
    relu: bool = False,
    zero: int = 3,
    **attributes: Any,
) -> Any:
    """Quantise, convolve, quantise, as ONNX Runtime's quantiser writes it."""
    outputs = weight[0]
    kind = "int8" if signed else "uint8"
    scale = np.float32(0.003)
    per = np.random.default_rng(1).uniform(0.002, 0.01, outputs if per_channel else ())
    steps = per.astype("float32")
    point = np.asarray(zero - 100 if signed else zero, kind)
    constants = {
        "s": np.float32(0.02),
        "z": np.asarray(zero - 80 if signed else 120 * (zero != 0), kind),
        "w": integers(-127, 128, *weight),
        "ws": steps,
        "wz": np.zeros(steps.shape, "int8"),
        "b": integers(-3000, 3000, outputs, dtype="int32"),
        "bs": np.float32(0.02) * steps,
        "bz": np.zeros(steps.shape, "int32"),
        "t": scale * np.float32(100),
        "tz": point,
    }
    nodes = [
        *quantized("x", "xd"),
        node("DequantizeLinear", "w ws wz", "wd", axis=0),
        node("DequantizeLinear", "b bs bz", "bd", axis=0),
        node("Conv", "xd wd bd", "c", **attributes),
        *([node("Relu", "c", "r")] if relu else []),
        *quantized("r" if relu else "c", "y", "t", "tz"),
    ]
    return build(nodes, [("x", FLOAT, shape)], [("y", FLOAT, None)], constants)


CONVOLUTIONS = [
    # x, weight, options
    ((1, 16, 9, 9), (32, 16, 1, 1), {}),
    ((1, 8, 7, 11), (17, 8, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((2, 5, 13, 6), (10, 5, 3, 3), {"pads": [1, 0, 1, 2], "strides": [2, 1]}),
    ((1, 3, 21, 21), (24, 3, 7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2], "relu": True}),
    ((1, 12, 9, 9), (7, 12, 3, 3), {"dilations": [2, 2], "signed": True}),
    ((1, 16, 8, 8), (16, 1, 3, 3), {"group": 16, "pads": [1, 1, 1, 1], "relu": True}),
    ((1, 11, 8, 9), (11, 1, 3, 3), {"group": 11, "strides": [2, 2], "signed": True}),
    ((1, 6, 8, 8), (12, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    ((1, 16, 6, 6), (32, 4, 3, 3), {"group": 4, "pads": [1, 1, 1, 1], "zero": 0}),
    ((1, 6, 6, 6), (8, 3, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    ((1, 33, 5, 5), (19, 33, 1, 1), {"per_channel": False, "signed": True}),
    ((1, 1, 1, 1), (1, 1, 1, 1), {"per_channel": False}),
    ((1, 20, 4, 4), (48, 20, 1, 1), {"strides": [2, 2], "pads": [1, 1, 0, 0]}),
]


@pytest.mark.parametrize(("shape", "weight", "options"), CONVOLUTIONS)
def test_convolution(shape: tuple[int, ...], weight: tuple[int, ...], options: Any) -> None:
    model = convolution(shape, weight, **options)
    outcome = agree(model, {"x": noise(*shape)}, steps=0.3)
    rules = {kernel.rule for kernel in outcome.report.kernels}
    assert "fallback" not in rules


@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(1, 64, 10), (5, 13, 21), (16, 128, 48), (7, 3, 1), (33, 257, 7)]
)
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_matrix_product(rows: int, depth: int, columns: int, kind: str) -> None:
    constants = {
        "s": np.float32(0.02),
        "z": np.asarray(-5 if kind == "int8" else 131, kind),
        "w": integers(0, 256, depth, columns, dtype="uint8"),
        "ws": np.float32(0.01),
        "wz": np.uint8(128),
        "b": noise(columns),
        "t": np.float32(0.2),
    }
    nodes = [
        *quantized("x", "xd"),
        node("DequantizeLinear", "w ws wz", "wd"),
        node("MatMul", "xd wd", "m"),
        node("Add", "m b", "a"),
        *quantized("a", "y", "t", "z"),
    ]
    model = build(nodes, [("x", FLOAT, (rows, depth))], [("y", FLOAT, None)], constants)
    agree(model, {"x": noise(rows, depth)}, steps=0.2)


def test_a_network_of_blocks() -> None:
    """Residuals, pooling, concatenation, reshapes and clips on quantised tensors."""
    weights = {f"w{i}": integers(-127, 128, 16, 16, 3, 3) for i in range(3)}
    constants = {
        **weights,
        "s": np.float32(0.03),
        "z": np.uint8(110),
        "ws": np.float32(0.002),
        "wz": np.int8(0),
        "low": np.float32(0),
        "high": np.float32(6),
        "flat": np.array([1, -1], "int64"),
    }
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        *quantized("x", "x0"),
        *[node("DequantizeLinear", f"w{i} ws wz", f"v{i}") for i in range(3)],
        node("Conv", "x0 v0", "c0", **pads),
        node("Clip", "c0 low high", "k0"),
        *quantized("k0", "x1"),
        node("Conv", "x1 v1", "c1", **pads),
        *quantized("c1", "x2"),
        node("Conv", "x1 v2", "c2", **pads),
        *quantized("c2", "x3"),
        node("Add", "x2 x3", "a"),
        *quantized("a", "x4"),
        node("MaxPool", "x4", "p", kernel_shape=[3, 3], strides=[2, 2], **pads),
        *quantized("p", "x5"),
        node("MaxPool", "x1", "q", kernel_shape=[3, 3], strides=[2, 2], **pads),
        *quantized("q", "x6"),
        node("Concat", "x5 x6", "j", axis=1),
        *quantized("j", "x7"),
        node("GlobalAveragePool", "x7", "g"),
        *quantized("g", "x8"),
        node("Reshape", "x8 flat", "f"),
        *quantized("f", "y"),
    ]
    model = build(nodes, [("x", FLOAT, (1, 16, 11, 11))], [("y", FLOAT, None)], constants)
    agree(model, {"x": noise(1, 16, 11, 11)}, steps=0.03)


OPERATORS: list[tuple[str, list[Any], list[Any], list[Any], dict[str, Any]]] = [
    (
        "QLinearConv",
        [node("QLinearConv", "x xs xz w ws wz ys yz b", "y", pads=[1, 1, 1, 1])],
        [("x", UINT8, (1, 4, 6, 6))],
        [("y", UINT8, None)],
        {
            "xs": np.float32(0.02),
            "xz": np.uint8(99),
            "w": integers(-127, 128, 5, 4, 3, 3),
            "ws": np.array([0.01, 0.02, 0.03, 0.04, 0.05], "float32"),
            "wz": np.zeros(5, "int8"),
            "ys": np.float32(0.9),
            "yz": np.uint8(120),
            "b": integers(-900, 900, 5, dtype="int32"),
        },
    ),
    (
        "QLinearMatMul",
        [node("QLinearMatMul", "x xs xz w ws wz ys yz", "y")],
        [("x", INT8, (3, 10))],
        [("y", INT8, None)],
        {
            "xs": np.float32(0.02),
            "xz": np.int8(-7),
            "w": integers(-127, 128, 10, 6),
            "ws": np.float32(0.01),
            "wz": np.int8(0),
            "ys": np.float32(0.2),
            "yz": np.int8(5),
        },
    ),
    (
        "ConvInteger",
        [node("ConvInteger", "x w xz", "y", strides=[2, 2])],
        [("x", UINT8, (1, 8, 7, 7))],
        [("y", INT32, None)],
        {"xz": np.uint8(99), "w": integers(0, 120, 5, 8, 3, 3, dtype="uint8")},
    ),
    (
        "MatMulInteger",
        [node("MatMulInteger", "x w xz wz", "y")],
        [("x", UINT8, (2, 3, 10))],
        [("y", INT32, None)],
        {"xz": np.uint8(99), "w": integers(-127, 128, 10, 6), "wz": np.int8(3)},
    ),
    (
        "DynamicQuantizeLinear",
        [node("DynamicQuantizeLinear", "x", "y s z")],
        [("x", FLOAT, (3, 10))],
        [("y", UINT8, None), ("s", FLOAT, None), ("z", UINT8, None)],
        {},
    ),
    (
        "DequantizeLinear along an axis",
        [node("DequantizeLinear", "x s z", "y", axis=1)],
        [("x", INT8, (2, 3, 5))],
        [("y", FLOAT, None)],
        {"s": np.array([0.1, 0.2, 0.3], "float32"), "z": np.array([1, -2, 0], "int8")},
    ),
    (
        "QuantizeLinear along an axis",
        [node("QuantizeLinear", "x s z", "y", axis=0)],
        [("x", FLOAT, (3, 40))],
        [("y", INT8, None)],
        {"s": np.array([0.1, 0.002, 0.3], "float32"), "z": np.array([1, -2, 0], "int8")},
    ),
]


@pytest.mark.parametrize("name", [entry[0] for entry in OPERATORS])
def test_operator(name: str) -> None:
    _, nodes, inputs, outputs, constants = next(e for e in OPERATORS if e[0] == name)
    model = build(nodes, inputs, outputs, constants)
    feed = {
        x: noise(*shape)
        if kind == FLOAT
        else integers(0, 120, *shape, dtype="int8" if kind == INT8 else "uint8")
        for x, kind, shape in inputs
    }
    agree(model, feed, steps=0.0 if name.endswith("Integer") else 1.0)


def test_dynamic_quantization_of_zeros() -> None:
    model = build(
        [node("DynamicQuantizeLinear", "x", "y s z")],
        [("x", FLOAT, (3,))],
        [("y", UINT8, None), ("s", FLOAT, None), ("z", UINT8, None)],
    )
    agree(model, {"x": np.zeros(3, "float32")}, steps=0.0)


def test_blocked_quantization() -> None:
    """Each block of rows has a scale of its own."""
    made = build(
        [node("DequantizeLinear", "x s", "y", axis=0, block_size=2)],
        [("x", INT8, (4, 3))],
        [("y", FLOAT, None)],
        {"s": np.array([[1, 2, 3], [4, 5, 6]], "float32")},
        opset=21,
    )
    agree(made, {"x": integers(-127, 128, 4, 3)}, steps=0.0)
