"""Networks of concatenations and splits, against ONNX Runtime."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from tvm import tirx

from hybridc.compiler import frontend, pipeline, pipelines, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir import evaluate

FEW = settings(max_examples=12, deadline=None, derandomize=True)


class Network:
    """Builds an ONNX model; a tensor is its name, `channels` tells how many it has."""

    def __init__(self, channels: int) -> None:
        self.channels = {"x": channels}
        self.nodes: list[Any] = []
        self._weights: list[Any] = []
        self._random = np.random.default_rng(0)
        self._size = channels

    def add(self, operator: str, sources: list[str], counts: list[int], **given: Any) -> list[str]:
        names = [f"t{len(self.channels) + i}" for i in range(len(counts))]
        self.nodes.append(helper.make_node(operator, sources, names, **given))
        self.channels.update(zip(names, counts, strict=True))
        return names

    def constant(self, array: Any) -> str:
        self._weights.append(numpy_helper.from_array(array, f"w{len(self._weights)}"))
        return str(self._weights[-1].name)

    def convolve(self, source: str, outputs: int, side: int = 1) -> str:
        shape = (outputs, self.channels[source], side, side)
        weight = self.constant(self._random.standard_normal(shape).astype("float32") / 4)
        pads = [side // 2] * 4
        return self.add("Conv", [source, weight], [outputs], pads=pads)[0]

    def relu(self, source: str) -> str:
        return self.add("Relu", [source], [self.channels[source]])[0]

    def pool(self, source: str) -> str:
        same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
        return self.add("MaxPool", [source], [self.channels[source]], **same)[0]

    def concat(self, *sources: str) -> str:
        count = sum(self.channels[source] for source in sources)
        return self.add("Concat", list(sources), [count], axis=1)[0]

    def split(self, source: str, first: int) -> list[str]:
        counts = [first, self.channels[source] - first]
        sizes = self.constant(np.array(counts, "int64"))
        return self.add("Split", [source, sizes], counts, axis=1)

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "joins",
            [helper.make_tensor_value_info("x", 1, [2, self._size, 5, 6])],
            [helper.make_tensor_value_info(name, 1, None) for name in outputs],
            self._weights,
        )
        opsets = [helper.make_opsetid("", 20)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return onnx.shape_inference.infer_shapes(made)


def kernels_of(proto: onnx.ModelProto) -> set[str]:
    """Compile by the whole pipeline, compare with ONNX Runtime, name the kernels."""
    model = frontend.load(proto)
    context = Context(target.parse("cpu", threads=2), pipeline.rules())
    text = ",".join(entry for entry, _ in pipelines.DEFAULT)
    module = pipeline.run(pipeline.parse(text), model.module, context)
    data = np.random.default_rng(1).standard_normal(
        [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    )
    feed = {"x": data.astype("float32")}
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    got = evaluate.evaluate(module, [feed["x"]])
    for ours, right in zip(got, session.run(None, feed), strict=True):
        np.testing.assert_allclose(ours, np.asarray(right), rtol=2e-4, atol=2e-4)
    names = {var.name_hint for var, f in module.functions_items() if isinstance(f, tirx.PrimFunc)}
    assert {record.kernel for record in context.kernels} == names
    return names


def copies(names: set[str]) -> int:
    return sum(name.startswith(("concat", "copy", "strided_slice", "split")) for name in names)


def test_parts_of_a_concatenation_are_computed_in_their_places() -> None:
    net = Network(8)
    left, right = net.relu(net.convolve("x", 5)), net.convolve("x", 7, 3)
    proto = net.model([net.convolve(net.concat(left, right, net.pool(left)), 4)])
    assert copies(kernels_of(proto)) == 0


def test_concatenations_within_concatenations() -> None:
    net = Network(8)
    held = net.convolve("x", 16, 3)
    for _ in range(3):
        held = net.concat(held, net.convolve(held, 6, 3))
    assert copies(kernels_of(net.model([net.convolve(held, 4)]))) == 0


def test_a_part_is_read_where_it_lies() -> None:
    net = Network(8)
    first, second = net.split(net.convolve("x", 20), 4)
    proto = net.model([net.convolve(first, 3), net.convolve(second, 3, 3)])
    assert copies(kernels_of(proto)) == 0


def test_parts_joined_again_are_the_whole() -> None:
    net = Network(8)
    first, second = net.split(net.convolve("x", 20), 4)
    joined = net.concat(first, second, net.convolve(second, 5, 3))
    assert copies(kernels_of(net.model([net.convolve(joined, 3)]))) == 0


def test_a_member_of_two_concatenations_is_copied_once() -> None:
    net = Network(8)
    shared = net.convolve("x", 5, 3)
    one = net.concat(net.convolve("x", 4), shared)
    two = net.concat(shared, net.convolve("x", 3))
    assert copies(kernels_of(net.model([net.convolve(one, 2), net.convolve(two, 2)]))) == 1


def test_inputs_and_outputs_of_the_model_stay_their_own_tensors() -> None:
    net = Network(8)
    shown = net.convolve("x", 5, 3)
    joined = net.concat("x", shown, net.convolve("x", 4))
    assert copies(kernels_of(net.model([joined, shown]))) <= 2


def test_one_tensor_twice_in_a_concatenation() -> None:
    net = Network(8)
    twice = net.convolve("x", 5, 3)
    kernels_of(net.model([net.convolve(net.concat(twice, twice), 4)]))


Step = Callable[[Network, list[str]], None]


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Any order of convolutions, concatenations, splits, poolings and activations."""
    net = Network(draw(st.sampled_from([3, 8, 16])))
    tensors = ["x"]
    for _ in range(draw(st.integers(3, 9))):
        source = draw(st.sampled_from(tensors))
        match draw(st.sampled_from(["conv", "concat", "concat", "split", "pool", "relu"])):
            case "conv":
                side = draw(st.sampled_from([1, 3]))
                tensors.append(net.convolve(source, draw(st.sampled_from([1, 5, 16])), side))
            case "concat":
                others = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3))
                tensors.append(net.concat(source, *others))
            case "split":
                if net.channels[source] > 1:
                    first = draw(st.integers(1, net.channels[source] - 1))
                    tensors += net.split(source, first)
            case "pool":
                tensors.append(net.pool(source))
            case _:
                tensors.append(net.relu(source))
    outputs = draw(st.lists(st.sampled_from(tensors[1:]), min_size=1, max_size=2, unique=True))
    return net.model([*outputs, net.relu(tensors[-1])])


@FEW
@given(networks())
def test_any_network(proto: onnx.ModelProto) -> None:
    kernels_of(proto)
