"""What ONNX Runtime refuses is refused as it is read, whether it is to be verified or not."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from onnx_models import FLOAT, INT64, build, node

import hybridc
from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontend import load


def refused(model: Any, feed: dict[str, Any], message: str) -> None:
    """By both, here with these words."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feed)
    with pytest.raises(ModelError, match=message):
        load(model)


@pytest.mark.parametrize("opset", [0, 999])
def test_opsets_that_nobody_knows(opset: int) -> None:
    model = build([node("Relu", "x", "y")], [("x", FLOAT, [3])], [("y", FLOAT, [3])], opset=opset)
    refused(model, {"x": np.zeros(3, np.float32)}, f"opset {opset} is not known; the newest is")


def test_an_operator_of_a_later_opset() -> None:
    model = build([node("Gelu", "x", "y")], [("x", FLOAT, [3])], [("y", FLOAT, [3])], opset=13)
    refused(model, {"x": np.zeros(3, np.float32)}, "opset 13 has no operator 'Gelu'")


@pytest.mark.parametrize("k", [-1, 6])
def test_more_elements_than_there_are(k: int) -> None:
    outputs = [("v", FLOAT, None), ("i", INT64, None)]
    model = build([node("TopK", "x k", "v i")], [("x", FLOAT, [3, 5])], outputs, {"k": [k]})
    refused(model, {"x": np.zeros((3, 5), np.float32)}, f"'TopK' .*({k} of 5|requested k) elements")


def test_more_elements_than_an_open_axis_has() -> None:
    outputs = [("v", FLOAT, None), ("i", INT64, None)]
    model = build([node("TopK", "x k", "v i")], [("x", FLOAT, [3, "n"])], outputs, {"k": [4]})
    assert "n is at least 4: a TopK takes as many elements" in load(model).notes


def test_another_type_than_is_declared() -> None:
    model = build([node("Relu", "x", "y")], [("x", FLOAT, [3])], [("y", INT64, [3])])
    refused(model, {"x": np.zeros(3, np.float32)}, "output 'y' is declared int64, and is float32")


IMAGE = [1, 2, 4, 4]


@pytest.mark.parametrize(
    ("made", "constants", "message"),
    [
        (node("Conv", "x w", "y", kernel_shape=[3, 3]), (3, 2, 2, 3), r"\[3, 3\] and weights of"),
        (node("Conv", "x w", "y", kernel_shape=[3]), (3, 2, 3, 3), "incorrect size"),
        (node("Conv", "x w", "y"), (3, 2, 5, 5), "windows that do not fit into 4 elements"),
        (node("AveragePool", "x", "y", kernel_shape=[9, 2]), (), "do not fit into 4 elements"),
        (node("AveragePool", "x", "y", kernel_shape=[0, 2]), (), "must only contain positive"),
        (node("Concat", "x x", "y", axis=7), (), "is not valid"),
        (node("Flatten", "x", "y", axis=-9), (), "is not valid"),
    ],
)
def test_operators_whose_options_do_not_fit(
    made: Any, constants: tuple[int, ...], message: str
) -> None:
    weights = {"w": np.zeros(constants, np.float32)} if constants else {}
    model = build([made], [("x", FLOAT, IMAGE)], [("y", FLOAT, None)], weights)
    refused(model, {"x": np.zeros(IMAGE, np.float32)}, message)


def test_blocks_that_are_not_as_many_as_fit() -> None:
    constants = {"image": np.array([5, 5]), "block": np.array([1, 5])}
    made = node("Col2Im", "x image block", "y")
    model = build([made], [("x", FLOAT, [1, 5, 6])], [("y", FLOAT, None)], constants)
    refused(model, {"x": np.zeros((1, 5, 6), np.float32)}, "6 blocks where 5 fit")


@pytest.mark.parametrize("inputs", ["x i", "x i u"])
def test_indices_of_an_open_number_of_axes(inputs: str) -> None:
    operator = "GatherND" if inputs == "x i" else "ScatterND"
    given = [("x", FLOAT, ["n", "n"]), ("i", INT64, [4, "n"]), ("u", FLOAT, [4])]
    model = build([node(operator, inputs, "y")], given[: len(inputs.split())], [("y", FLOAT, None)])
    with pytest.raises(ModelError, match=f"'{operator}' .* open"):
        load(model)


def test_complex_numbers_have_a_known_number_of_parts() -> None:
    """What would be open tells real numbers from complex ones."""
    model = build([node("DFT", "x", "y")], [("x", FLOAT, [1, 5, "n"])], [("y", FLOAT, None)])
    with pytest.raises(ModelError, match="numbers of n parts"):
        load(model)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
@pytest.mark.parametrize(("operator", "size"), [("ConvInteger", 8), ("MatMulInteger", 2)])
def test_products_of_bytes_by_others(operator: str, size: int, kind: Any) -> None:
    """One of another rank or value is written out, and told by its own name all the same."""
    weights = np.full((3, 2, 3) if operator == "ConvInteger" else (2, 3), 1000, kind)
    shape = [1, 2, size]
    model = build(
        [node(operator, "x w", "y")],
        [("x", TensorProto.UINT8, shape)],
        [("y", TensorProto.INT32, None)],
        {"w": weights},
    )
    refused(model, {"x": np.zeros(shape, np.uint8)}, f"{operator}'.* has unsupported type")


def test_windows_larger_than_the_image_are_not_left_to_onnx_runtime() -> None:
    """Which would refuse them as the artifact runs."""
    made = node("MaxPool", "x", "y", kernel_shape=[9, 9])
    model = build([made], [("x", FLOAT, [1, 1, 4, 4])], [("y", FLOAT, None)])
    with pytest.raises(ModelError, match=r"'y' has the negative size -4; .* do not fit into 4"):
        hybridc.compile(model, verify="off")


def test_more_axes_than_arrays_have() -> None:
    shape = [1] * 64
    model = build([node("Neg", "x", "y")], [("x", FLOAT, shape)], [("y", FLOAT, None)])
    with pytest.raises(ModelError, match="has 64 axes; the most is 63"):
        load(model)
