"""Small ONNX models, and the check of an imported model against its reference."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import hybridc
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.model import Model, random_feed

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
INT64, BOOL = TensorProto.INT64, TensorProto.BOOL
Value = tuple[str, int, Sequence[int | str] | None]


def build(
    nodes: Sequence[Any],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    constants: dict[str, Any] | None = None,
    opset: int = 20,
    **options: Any,
) -> Any:
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    given = [helper.make_tensor_value_info(*value) for value in inputs]
    made = [helper.make_tensor_value_info(*value) for value in outputs]
    graph = helper.make_graph(nodes, "test", given, made, tensors)
    options = {"opset_imports": [helper.make_opsetid("", opset)], "ir_version": 10, **options}
    return helper.make_model(graph, **options)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def call(model: Any, *arrays: Any, **options: Any) -> list[Any]:
    """The answers of a compiled model, which is compared with its reference as it is compiled."""
    session = hybridc.InferenceSession(hybridc.compile(model, **options))
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


def check(model: Model, feed: dict[str, Any] | None = None) -> list[Any]:
    """The imported module and the reference agree; returns the outputs."""
    feed = feed or random_feed(model.inputs)
    got: list[Any] = [*evaluate(model.module, [feed[spec.name] for spec in model.inputs])]
    expected: list[Any] = [*model.reference(feed)]
    assert len(got) == len(expected) == len(model.outputs)
    for value, right, spec in zip(got, expected, model.outputs, strict=True):
        assert value.shape == right.shape == spec.shape
        assert str(value.dtype) == str(right.dtype) == spec.dtype
        np.testing.assert_allclose(value, right, rtol=1e-3, atol=1e-4, err_msg=spec.name)
    return got


def noise(*shape: int) -> Any:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def relu(shape: Sequence[int | str] | None = (2, 3)) -> Any:
    return build([node("Relu", "x", "y")], [("x", FLOAT, shape)], [("y", FLOAT, None)])


def shared_axes() -> Any:
    return build(
        [node("Add", "a b", "y")],
        [("a", FLOAT, ["n", 3]), ("b", FLOAT, ["n", "m"])],
        [("y", FLOAT, ["n", 3])],
    )
