"""Products of one row with a transposed matrix: no transposed copy is made, against numpy."""

from typing import Any

import numpy as np
import open_models
import pytest
from onnx import TensorProto, helper

import hybridc

SHAPES = [
    ((1, 64), (37, 64)),
    ((3, 4, 1, 16), (3, 4, 25, 16)),
    ((1, 19), (5, 2, 8, 19)),
    ((6, 1, 33), (6, 1, 33)),
    ((5, 1, 1, 40), (1, 7, 9, 40)),
]


def compiled(left: tuple[int, ...], right: tuple[int, ...], twice: bool = False) -> Any:
    """A model of `left @ right^T`, of which the transposed matrix may be a result too."""
    rank = len(right)
    axes = [*range(rank - 2), rank - 1, rank - 2]
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    results = {"y": [*batch, left[-2], right[-2]]}
    if twice:
        results["turned"] = [right[axis] for axis in axes]
    nodes = [
        helper.make_node("Transpose", ["b"], ["turned"], perm=axes),
        helper.make_node("MatMul", ["a", "turned"], ["y"]),
    ]
    given, made = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in of]
        for of in ((("a", left), ("b", right)), results.items())
    )
    graph = helper.make_graph(nodes, "turned", given, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return hybridc.compile(model, verify="off", threads=1)


def test_rows_of_any_number_are_added_up_as_they_lie() -> None:
    """An open batch and an open number of keys, and then the values by the same scores."""
    b = open_models.Builder()
    scores = b.op("MatMul", "q", b.op("Transpose", "k", perm=[0, 1, 3, 2]))
    made = b.op("MatMul", scores, "v")
    keys: Any = (("batch", 3, "keys", 32), "float32")
    values = (("batch", 3, "keys", 80), "float32")
    given: dict[str, Any] = {"q": (("batch", 3, 1, 32), "float32"), "k": keys, "v": values}
    artifact = hybridc.compile(b.model(given, {made: "float32"}), verify="off", threads=1)
    assert not any("transpose" in told["kernel"] for told in artifact.report["kernels"])
    session = hybridc.InferenceSession(artifact, 1)
    rng = np.random.default_rng(1)
    for batch, count in ((1, 1), (2, 3), (1, 16), (3, 17), (1, 389), (2, 1030)):
        shapes = {"q": (batch, 3, 1, 32), "k": (batch, 3, count, 32), "v": (batch, 3, count, 80)}
        feed = {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
        q, k, v = (feed[name].astype(np.float64) for name in "qkv")
        wanted = q @ np.swapaxes(k, -1, -2) @ v
        np.testing.assert_allclose(session.run(None, feed)[0], wanted, rtol=1e-4, atol=1e-3)


def answers(artifact: Any, left: tuple[int, ...], right: tuple[int, ...]) -> tuple[Any, Any]:
    """What it computes, and numpy in float64."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in (left, right))
    got = hybridc.InferenceSession(artifact, 1).run(["y"], {"a": a, "b": b})[0]
    return got, a.astype(np.float64) @ np.swapaxes(b.astype(np.float64), -1, -2)


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_rows_are_added_up_as_they_lie(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    artifact = compiled(left, right)
    kernels = [told["kernel"] for told in artifact.report["kernels"]]
    assert not any("transpose" in name for name in kernels)
    got, wanted = answers(artifact, left, right)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("left", "right", "twice"),
    [((2, 64), (37, 64), False), ((1, 5), (37, 5), False), ((1, 64), (37, 64), True)],
)
def test_others_are_transposed(left: tuple[int, ...], right: tuple[int, ...], twice: bool) -> None:
    """Several rows, rows shorter than vectors, and copies that are wanted for themselves."""
    artifact = compiled(left, right, twice)
    got, wanted = answers(artifact, left, right)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
