"""Single operators beside an open batch, length or image, against ONNX Runtime."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx_models import FLOAT, INT64, build, node, noise

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import ModelError
from hybridc.compiler.runtime.session import InferenceSession

IMAGE: list[Any] = ["n", 2, "h", "w"]
# The size of the image twice, as exporters write it.
TWICE = [
    node("Shape", "x", "shape"),
    node("Slice", "shape zero two", "front"),
    node("Slice", "shape two four", "side"),
    node("Mul", "side two", "larger"),
    node("Concat", "front larger", "sizes", axis=0),
]
SIZES = {"zero": np.array([0]), "two": np.array([2]), "four": np.array([4])}
CASES: dict[str, tuple[list[Any], list[Any], dict[str, Any]]] = {
    "gru": (
        [node("GRU", "x w r b", "y", hidden_size=3, linear_before_reset=1)],
        [5, "n", 4],
        {"w": noise(1, 9, 4), "r": noise(1, 9, 3), "b": noise(1, 18)},
    ),
    "lstm": (
        [node("LSTM", "x w r b", "y _ z", hidden_size=3, direction="bidirectional")],
        [5, "n", 4],
        {"w": noise(2, 12, 4), "r": noise(2, 12, 3), "b": noise(2, 24)},
    ),
    "rnn": (
        [node("RNN", "x w r", "y", hidden_size=3, activations=["Relu"])],
        [5, "n", 4],
        {"w": noise(1, 3, 4), "r": noise(1, 3, 3)},
    ),
    **{
        f"back from {start} to {stop} by {step}": (
            [node("Slice", "x start stop axis step", "y")],
            ["n", 5],
            {
                **{"start": np.array([start]), "stop": np.array([stop])},
                **{"axis": np.array([1]), "step": np.array([step])},
            },
        )
        for start, stop, step in ((1, -6, -1), (-1, -99, -2), (4, 1, -1), (-9, -9, -1))
    },
    "instance norm": (
        [node("InstanceNormalization", "x w b", "y")],
        ["n", 3, "t"],
        {"w": noise(3), "b": noise(3)},
    ),
    "lstm_17": (
        [node("LSTM", "x w r b", "y _ z", hidden_size=17, direction="bidirectional")],
        [5, "n", 4],
        {"w": noise(2, 68, 4) / 4, "r": noise(2, 68, 17) / 4, "b": noise(2, 136)},
    ),
    "gru_17": (
        [node("GRU", "x w r", "y", hidden_size=17, direction="bidirectional")],
        [5, "n", 4],
        {"w": noise(2, 51, 4) / 4, "r": noise(2, 51, 17) / 4},
    ),
    "cropped": (
        [node("Pad", "x widths", "c"), node("Add", "c c", "y")],
        ["n", "m"],
        {"widths": np.array([-1, 1, 0, -2])},
    ),
    "volume": (
        [node("Conv", "x k", "y", pads=[1] * 6)],
        [1, 2, "n", 5, 7],
        {"k": noise(3, 2, 3, 3, 3)},
    ),
    "volume of open sides": (
        [node("Conv", "x k", "y", pads=[1] * 6, strides=[2] * 3)],
        [1, 2, "d", "h", "w"],
        {"k": noise(3, 2, 3, 3, 3)},
    ),
    "reshape between open axes": (
        [
            node("MaxPool", "x", "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("Reshape", "p halves", "q"),
            node("Add", "q k", "z"),
            node("Reshape", "z rows", "y"),
        ],
        ["n", 4, "h", "w"],
        {"k": noise(2, 1, 1), "halves": np.array([0, 2, 2, -1]), "rows": np.array([-1, 1, 2])},
    ),
    "signal": ([node("Conv", "x k", "y", pads=[1, 1])], [2, 3, "n"], {"k": noise(5, 3, 3)}),
    **{
        f"framed by {mode}": (
            [node("Pad", "x widths", "y", mode=mode)],
            IMAGE,
            {"widths": np.array([0, 0, 1, 0, 0, 1, 0, 1])},
        )
        for mode in ("edge", "reflect", "wrap")
    },
    "shares": ([node("Softmax", "x", "y", axis=1)], [2, "n", 3], {}),
    "sums": ([node("CumSum", "x axis", "y")], [2, "n", 3], {"axis": np.array(1)}),
    **{
        f"sums of those before, {way}": (
            [node("CumSum", "x axis", "y", exclusive=1, reverse=way == "back")],
            [2, "n", "m"],
            {"axis": np.array(1)},
        )
        for way in ("ahead", "back")
    },
    "marks": ([node("Hardmax", "x", "y", axis=1)], [2, "n", 3], {}),
    "diagonal": ([node("EyeLike", "x", "e", k=1), node("Add", "x e", "y")], ["n", "m"], {}),
    "tuples of each batch": (
        [
            node("Shape", "x", "shape", end=1),
            node("Concat", "shape one", "sizes", axis=0),
            node("Expand", "i sizes", "j"),
            node("GatherND", "x j", "y", batch_dims=1),
        ],
        ["n", 3, 4],
        {"i": np.array([[-1]]), "one": np.array([1])},
    ),
    "turned": (
        [node("Transpose", "x", "t", perm=[2, 0, 1]), node("Concat", "t t", "y", axis=0)],
        [2, 3, "n"],
        {},
    ),
    "rows": ([node("MatMul", "k x", "y")], [4, "n"], {"k": noise(3, 4)}),
    "linear": ([*TWICE, node("Resize", "x _ _ sizes", "y", mode="linear")], IMAGE, SIZES),
    "nearest": (
        [
            *TWICE,
            node(
                *("Resize", "x _ _ sizes", "y"),
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            ),
        ],
        IMAGE,
        SIZES,
    ),
    "places as floats": (
        [
            node("Shape", "x", "shape"),
            node("Gather", "shape last", "n"),
            node("Cast", "n", "f", to=FLOAT),
            node("Range", "zero f one", "r"),
            node("Add", "x r", "y"),
        ],
        [2, "n"],
        {"last": np.array(1), "zero": np.float32(0), "one": np.float32(1)},
    ),
    **{
        f"sizes as floats by {name}": (
            [
                node("Shape", "x", "shape"),
                node("Cast", "shape", "floats", to=FLOAT),
                node(operator, "floats by", "parts"),
                node(name, "parts", "whole"),
                node("Cast", "whole", "ends", to=INT64),
                node("Slice", "x zeros ends", "y"),
            ],
            ["n", 3, "m"],
            {"by": np.array([by, 1, by], np.float32), "zeros": np.array([0, 0, 0])},
        )
        for operator, name, by in (("Mul", "Floor", 0.75), ("Div", "Ceil", 4))
    },
    **{
        f"back along an open axis from {start} by {step}": (
            [node("Slice", "x start stop axis step", "y")],
            [3, "n"],
            {
                **{"start": np.array([start]), "stop": np.array([stop])},
                **{"axis": np.array([1]), "step": np.array([step])},
            },
        )
        for start, stop, step in ((-1, -(2**63), -1), (2**31, -9, -2), (5, 0, -1))
    },
    "elements": (
        [
            node("TopK", "x two", "v i", axis=0, largest=0),
            node("GatherElements", "x i", "y", axis=0),
        ],
        ["n", 4],
        SIZES,
    ),
    "tuples": (
        [node("GatherND", "x i", "y")],
        ["n", 4],
        {"i": np.array([[0, 3], [1, -1], [-2, 0], [-1, 1]])},
    ),
    "scattered": (
        [node("ScatterND", "x i u", "y")],
        ["n", 4],
        {"i": np.array([[0], [-1]]), "u": noise(2, 4)},
    ),
    "products": (
        [node("Einsum", "x k", "y", equation="nld,ed->nle")],
        ["n", "l", 4],
        {"k": noise(3, 4)},
    ),
    "triangle": ([node("Trilu", "x k", "y", upper=0)], ["n", "m"], {"k": np.array(-1)}),
    "rests": (
        [
            node("Mod", "x d", "f", fmod=1),
            node("Mul", "x ten", "t"),
            node("Cast", "t", "i", to=INT64),
            node("Mod", "i three", "m"),
            node("Cast", "m", "r", to=FLOAT),
            node("Add", "f r", "y"),
        ],
        ["n", 5],
        {"d": noise(5) ** 2 + 0.1, "ten": np.float32(10), "three": np.array([[3]])},
    ),
    "squares": (
        [node("Add", "x x", "z"), node("Pow", "z p", "y")],
        ["n", "m"],
        {"p": np.array([[2.0]], np.float32)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_beside_open_sizes(name: str) -> None:
    nodes, shape, constants = CASES[name]
    for each in nodes:
        for names in (each.input, each.output):
            names[:] = ["" if given == "_" else given for given in names]
    made = [("y", FLOAT, None), *([("z", FLOAT, None)] if name.startswith("lstm") else [])]
    proto = build(nodes, [("x", FLOAT, shape)], made, constants)
    outcome = driver.compile_source(proto, Options(threads=1, verify="off"))
    session = InferenceSession(outcome.artifact, 1)
    reference = onnxruntime.InferenceSession(proto.SerializeToString())
    for count in (2, 3, 7):
        sizes = [count + i if isinstance(size, str) else size for i, size in enumerate(shape)]
        feed = {"x": noise(*sizes)}
        wanted: Any = reference.run(None, feed)
        for got, right in zip(session.run(None, feed), wanted, strict=True):
            assert got.shape == right.shape
            np.testing.assert_allclose(got, right, 1e-3, 1e-4)


def test_any_type_is_padded_beside_open_sizes() -> None:
    nodes = [node("Cast", "x", "i", to=INT64), node("Pad", "i widths k", "y")]
    constants = {"widths": np.array([0, 1, 0, 2]), "k": np.array(7)}
    proto = build(nodes, [("x", FLOAT, ["n", "m"])], [("y", INT64, None)], constants)
    artifact = driver.compile_source(proto, Options(threads=1, verify="off")).artifact
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (y,) = InferenceSession(artifact, 1).run(None, {"x": x})
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), (1, 2)), constant_values=7))


def test_rows_of_a_product_stay_an_open_size_where_another_axis_is_shifted() -> None:
    nodes = [
        node("Pad", "x widths", "shifted"),
        node("Add", "x shifted", "sum"),
        node("MatMul", "sum w", "y"),
    ]
    constants = {"widths": np.array([0, 1, 0, 0, -1, 0]), "w": noise(4, 8)}
    proto = build(nodes, [("x", FLOAT, ["n", 5, 4])], [("y", FLOAT, None)], constants)
    outcome = driver.compile_source(proto, Options(threads=1))
    assert not any("failed" in note for note in outcome.report.notes)


def test_indices_beyond_an_open_axis_read_no_memory_of_others() -> None:
    nodes = [node("GatherElements", "x i", "y", axis=0)]
    given = [("x", FLOAT, ["n", 2]), ("i", INT64, [1, 2])]
    proto = build(nodes, given, [("y", FLOAT, None)])
    outcome = driver.compile_source(proto, Options(threads=1, verify="off"))
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    session = InferenceSession(outcome.artifact, 1)
    (y,) = session.run(None, {"x": x, "i": np.array([[10**9, -(10**9)]])})
    np.testing.assert_array_equal(y, [[4, 1]])


def test_a_size_of_minus_one_is_open_and_others_below_zero_are_refused() -> None:
    proto = build([node("Relu", "x", "y")], [("x", FLOAT, [-1, 3])], [("y", FLOAT, None)])
    session = InferenceSession(driver.compile_source(proto, Options(threads=1)).artifact, 1)
    assert session.run(None, {"x": noise(5, 3)})[0].shape == (5, 3)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -5
    with pytest.raises(ModelError, match="input 'x' has a negative size, -5"):
        driver.compile_source(proto, Options(threads=1))


def test_elements_of_fixed_places_along_an_open_axis() -> None:
    """Of an odd number, so that their axes are made one, in a tensor of no known size."""
    nodes = [node("Gather", "x i", "g", axis=0), node("Tanh", "g", "y")]
    proto = build(nodes, [("x", FLOAT, ["n", 7, 3])], [("y", FLOAT, None)], {"i": np.array([0, 2])})
    outcome = driver.compile_source(proto, Options(threads=1, verify="off"))
    assert not any(
        "failed" in text
        for k in outcome.artifact.report["kernels"]
        for text in k["refused"].values()
    )
    session = InferenceSession(outcome.artifact, 1)
    for count in (3, 8):
        x = noise(count, 7, 3)
        np.testing.assert_allclose(session.run(None, {"x": x})[0], np.tanh(x[[0, 2]]), 1e-5)
