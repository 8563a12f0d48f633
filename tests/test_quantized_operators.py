"""Operators on quantised tensors, by ONNX Runtime's names and between quantisations."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import FLOAT, build, check, node, noise
from test_integer_arithmetic import agree, integers, quantized

from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.driver import compile_source
from hybridc.compiler.frontend import load
from hybridc.compiler.runtime.session import InferenceSession

UINT8, INT8, BOOL = TensorProto.UINT8, TensorProto.INT8, TensorProto.BOOL
MICROSOFT = "com.microsoft"
OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]

PARAMETERS: dict[str, Any] = {
    "as": np.float32(0.02),
    "az": np.uint8(99),
    "bs": np.float32(0.013),
    "bz": np.uint8(140),
    "ys": np.float32(0.03),
    "yz": np.uint8(120),
}
# Of what lies between 0 and 1.
SHARE = {"ys": np.float32(1 / 256), "yz": np.uint8(0)}
A, B, Y = "a as az", "b bs bz", "ys yz"
Shape = tuple[int, ...]
OWN: list[tuple[str, str, list[Shape], dict[str, Any], dict[str, Any]]] = [
    # Operator, inputs, shapes of a and b, attributes, constants.
    ("QLinearAdd", f"{A} {B} {Y}", [(1, 7, 5, 3), (7, 1, 3)], {}, {}),
    ("QLinearMul", f"{A} {B} {Y}", [(2, 33), (33,)], {}, {}),
    ("QLinearConcat", f"{Y} {A} {B}", [(2, 3, 5), (2, 6, 5)], {"axis": 1}, {}),
    ("QLinearGlobalAveragePool", f"{A} {Y}", [(2, 17, 5, 7)], {"channels_last": 0}, {}),
    ("QLinearGlobalAveragePool", f"{A} {Y}", [(2, 5, 7, 17)], {"channels_last": 1}, {}),
    (
        "QLinearAveragePool",
        f"{A} {Y}",
        [(1, 5, 9, 8)],
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
        {},
    ),
    ("QLinearSigmoid", f"{A} {Y}", [(3, 37)], {}, SHARE),
    ("QLinearLeakyRelu", f"{A} {Y}", [(3, 37)], {"alpha": 0.2}, {}),
    ("QLinearSoftmax", f"{A} {Y}", [(3, 5, 7)], {"axis": 1, "opset": 13}, SHARE),
    ("QLinearSoftmax", f"{A} {Y}", [(3, 5, 7)], {"axis": 1, "opset": 11}, SHARE),
    (
        "QGemm",
        f"{A} w ws wz c {Y}",
        [(5, 13)],
        {"transB": 1},
        {
            "w": integers(-127, 128, 9, 13),
            "ws": np.linspace(0.01, 0.02, 9).astype("float32"),
            "wz": np.zeros(9, "int8"),
            "c": integers(-900, 900, 9, dtype="int32"),
            "ys": np.float32(0.3),
        },
    ),
    (
        "QGemm",
        f"{A} w ws wz c",
        [(5, 13)],
        {"alpha": 0.5},
        {
            "w": integers(-127, 128, 13, 21),
            "ws": np.float32(0.01),
            "wz": np.int8(0),
            "c": integers(-900, 900, 21, dtype="int32"),
        },
    ),
]


@pytest.mark.parametrize("case", range(len(OWN)), ids=lambda i: f"{OWN[i][0]}-{i}")
def test_operators_of_onnx_runtime(case: int) -> None:
    operator, inputs, shapes, attributes, constants = OWN[case]
    known = {**PARAMETERS, **constants}
    floats = operator == "QGemm" and not inputs.endswith("yz")
    model = build(
        [node(operator, inputs, "y", domain=MICROSOFT, **attributes)],
        [(name, UINT8, shape) for name, shape in zip("ab", shapes, strict=False)],
        [("y", FLOAT if floats else UINT8, None)],
        {name: known[name] for name in inputs.split() if name in known},
        opset_imports=OPSETS,
    )
    feed = {
        name: integers(0, 256, *shape, dtype="uint8")
        for name, shape in zip("ab", shapes, strict=False)
    }
    agree(model, feed, steps=1e-3 if floats else 1.0)


def test_what_is_chosen_is_quantised() -> None:
    model = build(
        [node("QLinearWhere", f"k {A} {B} {Y}", "y", domain=MICROSOFT)],
        [("k", BOOL, (4, 9)), ("a", UINT8, (4, 9)), ("b", UINT8, (4, 9))],
        [("y", UINT8, None)],
        PARAMETERS,
        opset_imports=OPSETS,
    )
    bytes_of = {name: integers(0, 256, 4, 9, dtype="uint8") for name in "ab"}
    agree(model, {"k": noise(4, 9) > 0, **bytes_of})


BETWEEN: dict[str, tuple[list[Any], Shape, dict[str, Any]]] = {
    "add": ([node("Add", "x x", "c")], (2, 7, 5), {}),
    "concat": ([node("Concat", "x x", "c", axis=1)], (1, 5, 6, 7), {}),
    "average pool": (
        [node("AveragePool", "x", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        (1, 17, 7, 5),
        {},
    ),
    "max pool": (
        [node("MaxPool", "x", "c", kernel_shape=[3, 2], strides=[2, 1])],
        (1, 17, 7, 5),
        {},
    ),
    "resize": (
        [
            node(
                "Resize",
                "x r r n",
                "c",
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
            )
        ],
        (1, 5, 3, 4),
        {"r": np.zeros(0, "float32"), "n": np.array([1, 5, 6, 8], "int64")},
    ),
    "transposes": (
        [
            node("Transpose", "x", "l", perm=[0, 2, 3, 1]),
            node("Transpose", "l", "c", perm=[3, 1, 0, 2]),
        ],
        (2, 5, 3, 4),
        {},
    ),
    "sigmoid": ([node("Sigmoid", "x", "c")], (3, 19), {}),
    "softmax": ([node("Softmax", "x", "c", axis=-1)], (3, 19), {}),
    "layer norm": (
        [node("LayerNormalization", "x g g", "c")],
        (3, 19),
        {"g": np.linspace(0.1, 1, 19).astype("float32")},
    ),
}


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_between_quantisations(name: str, kind: str) -> None:
    nodes, shape, constants = BETWEEN[name]
    renamed = [onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes]
    for each in renamed:
        inputs = ["xd" if given == "x" else given for given in each.input]
        each.input[:] = inputs
    both = {
        "s": np.float32(0.02),
        "z": np.asarray(-9 if kind == "int8" else 120, kind),
        "t": np.float32(0.025),
        "u": np.asarray(5 if kind == "int8" else 100, kind),
    }
    model = build(
        [*quantized("x", "xd"), *renamed, *quantized("c", "y", "t", "u")],
        [("x", FLOAT, shape)],
        [("y", FLOAT, None)],
        {**both, **constants},
    )
    agree(model, {"x": noise(*shape)}, steps=0.025)


@pytest.mark.parametrize("per_channel", [False, True])
def test_convolution_of_a_signal(per_channel: bool) -> None:
    steps = np.linspace(0.002, 0.01, 21).astype("float32") if per_channel else np.float32(0.004)
    constants = {
        "s": np.float32(0.02),
        "z": np.uint8(120),
        "w": integers(-127, 128, 21, 10, 5),
        "ws": steps,
        "wz": np.zeros(np.shape(steps), "int8"),
        "b": integers(-3000, 3000, 21, dtype="int32"),
        "bs": np.float32(0.02) * steps,
        "t": np.float32(0.3),
    }
    nodes = [
        *quantized("x", "xd"),
        node("DequantizeLinear", "w ws wz", "wd", axis=0),
        node("DequantizeLinear", "b bs", "bd", axis=0),
        node("Conv", "xd wd bd", "c", strides=[2], pads=[2, 1], dilations=[1]),
        *quantized("c", "y", "t"),
    ]
    model = build(nodes, [("x", FLOAT, (2, 10, 37))], [("y", FLOAT, None)], constants)
    outcome = agree(model, {"x": noise(2, 10, 37)}, steps=0.3)
    assert "int8" in {kernel.precision for kernel in outcome.report.kernels}


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"strides": [1, 3], "group": 2, "dilations": [2, 1]},
    ],
)
def test_transposed_convolution(attributes: dict[str, Any]) -> None:
    constants = {
        "s": np.float32(0.02),
        "z": np.uint8(120),
        "w": integers(-127, 128, 6, 7, 3, 3),
        "ws": np.float32(0.005),
        "wz": np.int8(0),
        "t": np.float32(0.1),
    }
    nodes = [
        *quantized("x", "xd"),
        node("DequantizeLinear", "w ws wz", "wd"),
        node("ConvTranspose", "xd wd", "c", **attributes),
        *quantized("c", "y", "t"),
    ]
    model = build(nodes, [("x", FLOAT, (1, 6, 5, 7))], [("y", FLOAT, None)], constants)
    agree(model, {"x": noise(1, 6, 5, 7)}, steps=0.1)


def test_no_divisor_is_a_negative_zero() -> None:
    """What rounds to -0 is stored as 0."""
    nodes = [
        node("QuantizeLinear", "x scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "d"),
        node("Div", "one d", "y"),
    ]
    constants = {"scale": np.float32(0.03), "zero": np.int8(5), "one": np.float32(1)}
    x = np.array([-0.003, 0.003, -0.0, 0.0, -3.0], np.float32)
    model = build(nodes, [("x", FLOAT, x.shape)], [("y", FLOAT, x.shape)], constants, opset=13)
    (got,) = InferenceSession(compile_source(model, Options(verify="off")).artifact).run(
        None, {"x": x}
    )
    np.testing.assert_allclose(got, [np.inf] * 4 + [-1 / 3], rtol=1e-6)


@pytest.mark.parametrize("opset", [10, 12])
@pytest.mark.parametrize("held", [True, False])
def test_products_and_convolutions_of_old_opsets(opset: int, held: bool) -> None:
    """With scales of each column, and a bias; in opset 10 nothing else has an axis."""
    constants: dict[str, Any] = {
        **{"xs": np.float32(0.02), "xz": np.uint8(3), "ys": np.float32(0.5), "yz": np.uint8(100)},
        "w": integers(-128, 128, 4, 3, 3, 3),
        "ws": np.linspace(0.01, 0.02, 4).astype("float32"),
        "wz": np.zeros(4, "int8"),
        "b": integers(-900, 900, 4, dtype="int32"),
        "m": integers(-128, 128, 5, 4),
    }
    nodes = [
        node("QLinearConv", "x xs xz w ws wz ys yz b", "c", pads=[1, 1, 1, 1]),
        node("QLinearMatMul", "c xs xz m ws wz ys yz", "y"),
    ]
    if not held:
        given = {
            name: numpy_helper.from_array(np.asarray(constants.pop(name))) for name in ("ws", "xs")
        }
        nodes = [*(node("Constant", "", n, value=t) for n, t in given.items()), *nodes]
    model = build(nodes, [("x", UINT8, (1, 3, 4, 5))], [("y", UINT8, None)], constants, opset)
    check(load(model))
