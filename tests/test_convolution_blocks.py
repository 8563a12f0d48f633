"""Windows with costly epilogues and gates of channels, beside ONNX Runtime."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import hybridc
from hybridc.compiler.runtime.session import InferenceSession

# Channels, side, window, stride, dilation: whole vectors, halves, none; ragged tiles; few pixels.
SHAPES = [
    (16, 9, 3, 1, 1),
    (24, 15, 5, 2, 1),
    (40, 7, 5, 1, 1),
    (20, 11, 3, 1, 2),
    (13, 8, 3, 2, 1),
    (96, 6, 7, 1, 1),
    (32, 24, 3, 1, 1),
]


class Graph:
    """A chain of operators on an image `x`, with random weights."""

    def __init__(self, channels: int, side: int) -> None:
        self.rng = np.random.default_rng(channels * side)
        self.channels, self.side = channels, side
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def then(self, op: str, *given: str, **attributes: Any) -> str:
        made = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(given), [made], **attributes))
        return made

    def random(self, *shape: int) -> str:
        array = self.rng.standard_normal(shape).astype(np.float32) / 3
        self.weights.append(onnx.numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return f"w{len(self.weights) - 1}"

    def model(self, result: str) -> Any:
        shape = [1, self.channels, self.side, self.side]
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return onnx.shape_inference.infer_shapes(made)


def activated(graph: Graph, given: str, activation: str) -> str:
    if activation == "SiLU":
        return graph.then("Mul", given, graph.then("Sigmoid", given))
    return graph.then(activation, given)


def gated(graph: Graph, given: str) -> str:
    few = max(1, graph.channels // 4)
    gate = graph.then("GlobalAveragePool", given)
    for op, out, of in (("Relu", few, graph.channels), ("Sigmoid", graph.channels, few)):
        gate = graph.then("Conv", gate, graph.random(out, of, 1, 1), graph.random(out))
        gate = graph.then(op, gate)
    return graph.then("Mul", given, gate)


def pixels(shape: tuple[int, ...], activation: str) -> Iterator[Any]:
    channels, side, window, stride, dilation = shape
    graph = Graph(channels, side)
    convolved = graph.then(
        "Conv",
        *("x", graph.random(channels, 1, window, window), graph.random(channels)),
        group=channels,
        strides=[stride] * 2,
        dilations=[dilation] * 2,
        pads=[dilation * (window // 2)] * 4,
    )
    model = graph.model(gated(graph, activated(graph, convolved, activation)))
    x = graph.rng.standard_normal((1, channels, side, side)).astype(np.float32)
    yield onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    yield InferenceSession(hybridc.compile(model), 2).run(None, {"x": x})[0]


@pytest.mark.parametrize("activation", ["SiLU", "HardSwish"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_depthwise_windows_with_a_gate_behind(shape: tuple[int, ...], activation: str) -> None:
    wanted, found = pixels(shape, activation)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
