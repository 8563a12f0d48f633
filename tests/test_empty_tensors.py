"""Results without elements and empty operands of Concat; the oracles are ONNX Runtime and torch."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

import hybridc
from hybridc.compiler.frontend import load
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.ir.rewrite import calls


def described(name: str, array: Any) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, array.shape)


def model(
    nodes: list[Any], feed: dict[str, Any], constants: dict[str, Any], opset: int, **outputs: Any
) -> Any:
    """A model with outputs of such shapes and types."""
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    inputs = [described(name, array) for name, array in feed.items()]
    results = [described(name, np.empty(*kind)) for name, kind in outputs.items()]
    graph = helper.make_graph(nodes, "empty", inputs, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def check(proto: Any, feed: dict[str, Any], rtol: float = 1e-5) -> None:
    """Compare by ONNX Runtime, which declares what its own outputs are."""
    oracle = onnxruntime.InferenceSession(proto.SerializeToString())
    made = hybridc.compile(proto, verify="off", threads=1, fallback=False)
    session = hybridc.InferenceSession(made)
    wanted: Any = oracle.run(None, feed)
    for got, right in zip(session.run(None, feed), wanted, strict=True):
        assert (got.shape, got.dtype) == (right.shape, right.dtype)
        np.testing.assert_allclose(got, right, rtol=rtol, atol=rtol)


def noise(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def joined(*operands: str, axis: int = 3) -> Any:
    return helper.make_node("Concat", operands, ["y"], axis=axis)


def test_a_convolution_joined_with_an_empty_constant() -> None:
    feed = {"x": noise(2, 1, 15, 9, dtype=np.float16)}
    constants = {
        "w": noise(1, 1, 3, 3, dtype=np.float16),
        "nothing": np.zeros((2, 1, 13, 0), np.float16),
    }
    options: dict[str, Any] = {"dilations": [3, 5], "pads": [4, 0, 0, 4]}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], **options), joined("c", "nothing")]
    check(model(nodes, feed, constants, 13, y=((2, 1, 13, 3), np.float16)), feed, 1e-2)


def test_empty_inputs_join_nothing() -> None:
    """Of the three one is left: the input itself, of which the output is a copy."""
    feed = {"a": noise(2, 0, 3), "x": noise(2, 4, 3), "b": noise(2, 0, 3)}
    proto = model([joined("a", "x", "b", axis=1)], feed, {}, 13, y=((2, 4, 3), np.float32))
    assert not calls(load(proto).module, "concat")
    check(proto, feed)


def test_more_than_one_operand_is_left() -> None:
    feed = {"a": noise(2, 3), "nothing": noise(2, 0), "b": noise(2, 1)}
    check(model([joined(*feed, axis=-1)], feed, {}, 13, y=((2, 4), np.float32)), feed)


def test_slices_of_which_nothing_is_left() -> None:
    """Their shapes are none that ONNX infers: bounds as attributes, and a first behind the last."""
    feed = {"x": np.arange(4, dtype=np.int32).reshape(1, 1, 4), "z": noise(1, 162, 1, 1)}
    first: dict[str, Any] = {"axes": [1, 2, 0], "starts": [1, 0, 0], "ends": [-(2**63) + 1, 4, 1]}
    second: dict[str, Any] = {"axes": [0, 1], "starts": [-1, 0], "ends": [-1, 2**63 - 1]}
    nodes = [
        helper.make_node("Cast", ["z"], ["half"], to=onnx.TensorProto.FLOAT16),
        helper.make_node("Slice", ["x"], ["part"], **first),
        helper.make_node("Slice", ["part"], ["nothing"], **second),
    ]
    outputs: dict[str, Any] = {
        "half": ((1, 162, 1, 1), np.float16),
        "nothing": ((0, 0, 4), np.int32),
    }
    proto = model(nodes, feed, {}, 8, **outputs)
    assert not calls(load(proto).module, "strided_slice")
    check(proto, feed)


def test_a_model_all_of_whose_results_are_empty() -> None:
    feed = {"x": np.ones((2, 3), bool)}
    node = helper.make_node("Slice", ["x"], ["y"], axes=[1], starts=[2], ends=[1])
    check(model([node], feed, {}, 8, y=((2, 0), bool)), feed)


class Joined(torch.nn.Module):
    def forward(self, x: Any, nothing: Any) -> Any:
        return torch.cat([nothing, torch.relu(x), nothing * 2], 1), x[:, 3:].sin()


def test_torch_joins_nothing() -> None:
    """By its own importer; the other road is that of ONNX."""
    x, nothing = torch.randn(2, 3), torch.zeros(2, 0)
    found = load(Joined(), example_inputs=(x, nothing), without=("ONNX",))
    assert not calls(found.module, "concat", "sin")
    got = evaluate(found.module, [x.numpy(), nothing.numpy()])
    for value, right in zip(got, Joined()(x, nothing), strict=True):
        np.testing.assert_array_equal(value, right.numpy())
