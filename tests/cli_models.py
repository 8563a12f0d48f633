"""Small models and files that are none, for the tests of verbs; and what an error looks like."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler.model import Array

# IR as text, which computes one thing twice.
RELU_TWICE = """
@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor((8, 8), dtype="float32")):
        with R.dataflow():
            y = R.nn.relu(x)
            z = R.nn.relu(x)
            w = R.add(y, z)
            R.output(w)
        return w
"""

WEIGHT = np.random.default_rng(2).standard_normal((12, 8)).astype(np.float32)


def graph(nodes: list[onnx.NodeProto], batch: int | str = 4, **values: Array) -> onnx.ModelProto:
    """A model of one input `x` [batch, 12] and one output `y` [batch, 8]."""
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nasa", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def dense(batch: int | str = 4) -> onnx.ModelProto:
    """`relu(x @ WEIGHT)`."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return graph(nodes, batch, w=WEIGHT)


def answer(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What `dense` computes."""
    return np.maximum(x @ WEIGHT, 0)


def write(folder: Path) -> None:
    """Write a model, one of open shape, one that nobody can compile, and files that are none."""
    onnx.save(dense(), folder / "tiny.onnx")
    onnx.save(dense("batch"), folder / "open.onnx")
    odd = [helper.make_node("FlyToTheMoon", ["x"], ["y"], name="apollo", domain="nasa")]
    onnx.save(graph(odd), folder / "odd.onnx")
    whole = (folder / "tiny.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.onnx").write_bytes(b"")
    for name, times in (("poem.onnx", 20), ("poem.txt", 1), ("poem.npz", 1)):
        (folder / name).write_text("The fog comes on little cat feet.\n" * times)
    (folder / "folder.onnx").mkdir()


def assert_error(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """One line on stderr that holds these parts, and nothing on stdout."""
    out, err = capsys.readouterr()
    assert not out
    (line,) = err.splitlines()
    assert line.startswith("hybridc: error: ")
    for part in parts:
        assert part in line
