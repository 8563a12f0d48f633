"""Models whose outputs are no numbers, and data that are none."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hybridc.compiler import driver
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError


def logarithm() -> onnx.ModelProto:
    """`log(x)`, which is NaN below 0."""
    graph = helper.make_graph(
        [helper.make_node("Log", ["x"], ["y"])],
        "logarithm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


BELOW = {"x": np.array([[[1, 2, 3, -1]], [[1, 2, 3, 4]]], np.float32)}
ABOVE = {"x": np.abs(BELOW["x"])}


def test_accuracy_of_what_is_no_number_is_not_judged() -> None:
    limits = Options(contract=Contract(min_accuracy={"cosine": 0.9}), calibration=BELOW)
    said = r"output 'y' of the model itself is NaN in 1 of 8 elements, in 1 of 2 samples .*numbers"
    with pytest.raises(InputError, match=said):
        driver.compile_source(logarithm(), limits)
    fit = Options(contract=Contract(min_accuracy={"cosine": 0.9}), calibration=ABOVE)
    assert driver.compile_source(logarithm(), fit).artifact.certificate["kept"] is True


def test_without_a_limit_it_is_noted() -> None:
    found = driver.compile_source(logarithm(), Options(calibration=BELOW))
    assert any("is NaN in 1 of 8 elements" in note for note in found.report.notes)
    assert "is NaN in 1 of 8 elements" in found.report.summary()
