"""Inspection counts what is there; the counts are worked out by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler.anatomy.inspection import inspect_model
from hybridc.compiler.errors import InputError, ModelError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def build(
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, int, Sequence[int | str]]],
    constants: dict[str, Any],
) -> Any:
    """A model whose output is `y`."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def floats(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def network(batch: int | str) -> Any:
    """Grouped convolution, flattening and Gemm: 8 x 8 images, 4 channels, 2 groups."""
    return build(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], group=2, strides=[2, 2]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Reshape", ["r", "shape"], ["f"]),
            helper.make_node("Gemm", ["f", "v"], ["g"], transB=1),
            helper.make_node("Relu", ["g"], ["y"]),
        ],
        [("x", FLOAT, [batch, 4, 8, 8])],
        {
            "w": floats(6, 2, 3, 3),
            "b": floats(6),
            "shape": np.array([-1, 54]),
            "v": floats(5, 54),
        },
    )


def test_static_model() -> None:
    found = inspect_model(network(2))
    assert found["operators"] == {"Relu": 2, "Conv": 1, "Reshape": 1, "Gemm": 1}
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": [2, 4, 8, 8]}]
    assert found["outputs"] == [{"name": "y", "dtype": "float32", "shape": [2, 5]}]
    learnt = 6 * 2 * 9 + 6 + 5 * 54  # `shape` is not learnt
    assert found["parameters"] == {"count": learnt, "bytes": 4 * learnt}
    convolution = 2 * (2 * 6 * 3 * 3) * (2 * 9)
    assert found["flops"] == convolution + 2 * (2 * 5) * 54
    assert found["flops_reason"] is None
    assert found["unsupported"] == {}
    assert found["opset"] == 20


def test_open_axes_are_shown_by_name() -> None:
    found = inspect_model(network("batch"))
    assert found["inputs"][0]["shape"] == ["batch", 4, 8, 8]
    assert found["flops"] is None
    assert "open sizes: batch; operations are counted for fixed" in found["flops_reason"]
    assert found["operators"]["Relu"] == 2


def test_open_axes_can_be_given() -> None:
    bound = inspect_model(network("batch"), {"x": (2, 4, 8, 8)})
    assert bound["flops"] == inspect_model(network(2))["flops"]
    with pytest.raises(ModelError, match="axis 1 of input 'x' is 4, not 3"):
        inspect_model(network("batch"), {"x": (2, 3, 8, 8)})


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([2, 3], [3, 5], 2 * 2 * 3 * 5),
        ([7, 2, 3], [3, 5], 2 * 7 * 2 * 3 * 5),
        ([7, 2, 3], [7, 3, 5], 2 * 7 * 2 * 3 * 5),
        ([3], [3], 2 * 3),
    ],
)
def test_matrix_products(left: list[int], right: list[int], expected: int) -> None:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    assert inspect_model(build(nodes, [("a", FLOAT, left), ("b", FLOAT, right)], {}))["flops"] == (
        expected
    )


def test_transposed_convolution() -> None:
    """Each of 3 x 16 input elements meets 5 channels of a 2 x 2 kernel."""
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])]
    model = build(nodes, [("x", FLOAT, [1, 3, 4, 4])], {"w": floats(3, 5, 2, 2)})
    assert inspect_model(model)["flops"] == 2 * 3 * 16 * 5 * 4


def test_unsupported_operators_are_counted() -> None:
    nodes = [
        helper.make_node("Twiddle", ["x"], ["a"]),
        helper.make_node("Twiddle", ["a"], ["b"]),
        helper.make_node("Frobnicate", ["b"], ["c"]),
        helper.make_node("Celu", ["c"], ["y"]),  # written with supported operators
    ]
    found = inspect_model(build(nodes, [("x", FLOAT, [2])], {}))
    assert found["unsupported"] == {"Twiddle": 2, "Frobnicate": 1}


def test_operators_that_are_folded_away_are_no_obstacle() -> None:
    nodes = [
        helper.make_node("LpNormalization", ["c"], ["d"]),
        helper.make_node("Add", ["x", "d"], ["y"]),
    ]
    found = inspect_model(build(nodes, [("x", FLOAT, [2])], {"c": floats(2) + 1}))
    assert found["unsupported"] == {}


def test_the_result_is_json(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(network(1).SerializeToString())
    found = inspect_model(path)
    assert json.loads(json.dumps(found)) == found
    assert found["name"] == "net"


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        inspect_model(tmp_path / "gone.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    with pytest.raises(ModelError, match="not an ONNX model"):
        inspect_model(tmp_path / "bad.onnx")


def test_torch_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(module, (torch.zeros(2, 4),)), path)
    found = inspect_model(str(path))
    assert (found["name"], found["format"]) == ("net", "torch")
    assert found["parameters"]["count"] == 4 * 3 + 3
    assert found["flops"] == 2 * 2 * 4 * 3


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrences_meet_their_weights_step_after_step(kind: str, gates: int) -> None:
    weights = {"w": floats(2, gates * 5, 6), "r": floats(2, gates * 5, 5)}
    node = helper.make_node(kind, ["x", "w", "r"], ["y"], hidden_size=5, direction="bidirectional")
    found = inspect_model(build([node], [("x", FLOAT, [7, 3, 6])], weights))
    assert found["flops"] == 2 * 7 * 3 * 2 * gates * 5 * (6 + 5)
