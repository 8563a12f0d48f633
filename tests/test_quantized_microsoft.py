"""Quantised operators as ONNX Runtime's optimiser and its quantiser write them."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import FLOAT, build, call, node, noise
from test_integer_arithmetic import agree, integers, quantized

from hybridc.compiler.frontends.onnx_reference import OnnxReference

INT32, UINT8 = TensorProto.INT32, TensorProto.UINT8
MICROSOFT = "com.microsoft"
QLINEAR = "a as az w ws wz ys yz"
PARAMETERS: dict[str, Any] = {
    "as": np.float32(0.02),
    "az": np.uint8(99),
    "ys": np.float32(0.1),
    "yz": np.uint8(120),
}
CHANNELS_LAST: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "image": (
        node(
            "QLinearConv",
            f"{QLINEAR} c",
            "y",
            domain=MICROSOFT,
            channels_last=1,
            group=2,
            strides=[2, 1],
            pads=[1, 0, 1, 2],
        ),
        (2, 5, 9, 8),
        {
            "w": integers(-127, 128, 6, 4, 3, 3),
            "ws": np.linspace(0.001, 0.002, 6).astype("float32"),
            "wz": np.zeros(6, "int8"),
            "c": integers(-900, 900, 6, dtype="int32"),
        },
    ),
    "signal": (
        node("QLinearConv", QLINEAR, "y", domain=MICROSOFT, channels_last=1),
        (2, 9, 4),
        {"w": integers(-127, 128, 6, 4, 3), "ws": np.float32(0.002), "wz": np.int8(0)},
    ),
    "channels first": (
        node("QLinearConv", QLINEAR, "y", domain=MICROSOFT),
        (2, 4, 9, 5),
        {"w": integers(-127, 128, 6, 4, 3, 1), "ws": np.float32(0.002), "wz": np.int8(0)},
    ),
    "largest": (
        node(
            "NhwcMaxPool",
            "a",
            "y",
            domain=MICROSOFT,
            kernel_shape=[3, 2],
            strides=[2, 1],
            pads=[1, 0, 1, 1],
        ),
        (2, 5, 9, 8),
        {},
    ),
}


def opsets(version: int) -> list[Any]:
    return [helper.make_opsetid("", version), helper.make_opsetid(MICROSOFT, 1)]


@pytest.mark.parametrize("name", CHANNELS_LAST)
def test_images_whose_channels_come_last(name: str) -> None:
    made, shape, constants = CHANNELS_LAST[name]
    model = build(
        [made],
        [("a", UINT8, shape)],
        [("y", UINT8, None)],
        {k: v for k, v in {**PARAMETERS, **constants}.items() if k in made.input},
        opset_imports=opsets(20),
    )
    outcome = agree(model, {"a": integers(0, 256, *shape, dtype="uint8")})
    assert not outcome.artifact.regions


@pytest.mark.parametrize("kind", ["uint16", "int16", "int8"])
def test_any_type_in_any_opset(kind: str) -> None:
    """Along axis 1 where none is named."""
    model = build(
        [
            node("QuantizeLinear", "x s z", "q", domain=MICROSOFT),
            node("DequantizeLinear", "q s z", "y", domain=MICROSOFT),
        ],
        [("x", FLOAT, (3, 5, 7))],
        [("y", FLOAT, None)],
        {"s": np.linspace(0.001, 0.002, 5).astype("float32"), "z": np.arange(5).astype(kind)},
        opset_imports=opsets(12),
    )
    outcome = agree(model, {"x": noise(3, 5, 7)}, steps=0.002)
    assert not outcome.artifact.regions


@pytest.mark.parametrize("segments", [True, False])
def test_embeddings_of_bytes(segments: bool) -> None:
    parts = ("words", "places", "kinds", "gamma", "beta")
    shapes: tuple[tuple[int, ...], ...] = ((50, 16), (9, 16), (2, 16), (16,), (16,))
    constants: dict[str, Any] = {
        name: integers(0, 256, *shape, dtype="uint8")
        for name, shape in zip(parts, shapes, strict=True)
    }
    for index, name in enumerate(parts):
        constants[f"{name}_scale"] = np.float32(0.01 + 0.001 * index)
        constants[f"{name}_zero"] = np.uint8(120 + index)
    absent = [] if segments else ["kinds"]
    inputs = ["ids", "segments" if segments else "", *parts, "mask"]
    inputs += [f"{name}_{kind}" for kind in ("scale", "zero") for name in parts]
    inputs = ["" if name.split("_")[0] in absent else name for name in inputs]
    given = [name for name in ("ids", "segments", "mask") if name in inputs]
    model = build(
        [
            helper.make_node(
                "QEmbedLayerNormalization", inputs, ["y", "n"], domain=MICROSOFT, epsilon=1e-9
            )
        ],
        [(name, INT32, (2, 7)) for name in given],
        [("y", FLOAT, None), ("n", INT32, None)],
        {name: value for name, value in constants.items() if name in inputs},
        opset_imports=opsets(17),
    )
    arrays = [integers(0, 50 if name == "ids" else 2, 2, 7, dtype="int32") for name in given]
    wanted = OnnxReference(model)(dict(zip(given, arrays, strict=True)))
    got = call(model, *arrays, fallback=False)
    np.testing.assert_allclose(got[0], wanted[0], atol=1e-5)
    np.testing.assert_array_equal(got[1], wanted[1])


@pytest.mark.parametrize("layer", ["Conv", "Gemm"])
def test_a_bias_of_the_products_own_scale_in_batches_of_any_size(layer: str) -> None:
    """As ONNX Runtime's quantiser writes it."""
    conv = layer == "Conv"
    shape, weight = ((3, 5, 6), (4, 3, 3, 3)) if conv else ((7,), (7, 4))
    steps = np.full(4 if conv else (), 0.01, "float32")
    made = node(layer, "xd wd bd", "c", **({"pads": [1, 1, 1, 1]} if conv else {}))
    model = build(
        [
            *quantized("x", "xd"),
            node("DequantizeLinear", "w ws wz", "wd", axis=0),
            node("DequantizeLinear", "b bs bz", "bd", axis=0),
            made,
            *quantized("c", "y", "t", "u"),
        ],
        [("x", FLOAT, ("batch", *shape))],
        [("y", FLOAT, None)],
        {
            **{"s": np.float32(0.02), "z": np.uint8(120), "t": np.float32(0.1)},
            **{"u": np.uint8(100), "ws": steps, "wz": np.zeros(steps.shape, "int8")},
            "w": integers(-127, 128, *weight),
            "b": integers(-900, 900, 4, dtype="int32"),
            "bs": np.float32(0.02) * steps,
            "bz": np.zeros(steps.shape, "int32"),
        },
        opset=13,
    )
    agree(model, {"x": noise(3, *shape)}, steps=0.1)
