"""Sequences whose length is known are compiled; maps and sequences that are not go by regions."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_models import BOOL, FLOAT, INT64, build, node, noise

import hybridc
from hybridc.compiler.errors import ModelError


def agrees(model: Any, feed: Any, **options: Any) -> Any:
    """Compare with ONNX Runtime; returns the artifact."""
    artifact = hybridc.compile(model, verify="off", **options)
    got = hybridc.InferenceSession(artifact).run(None, feed)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    wanted: Any = session.run(None, feed)
    for value, right in zip(got, wanted, strict=True):
        assert (value.shape, value.dtype) == (right.shape, right.dtype)
        np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-6)
    return artifact


@pytest.mark.parametrize("place", ["0", "2", "-1", ""])
def test_built_and_taken_apart(place: str) -> None:
    nodes = [
        node("SequenceConstruct", "x y", "a"),
        helper.make_node("SequenceInsert", ["a", "z", *(["place"] if place else [])], ["b"]),
        node("SequenceErase", "b first", "c"),
        node("SequenceAt", "c last", "u"),
        node("SequenceLength", "b", "n"),
        node("ConcatFromSequence", "b", "s", axis=1, new_axis=1),
    ]
    given = [(name, FLOAT, (2, 3)) for name in "xyz"]
    model = build(
        nodes,
        given,
        [("u", FLOAT, None), ("n", INT64, None), ("s", FLOAT, None)],
        {"place": np.int64(place or 0), "first": np.int64(0), "last": np.int64(-1)},
    )
    artifact = agrees(model, {name: i + noise(2, 3) for i, name in enumerate("xyz")})
    assert not artifact.regions


@pytest.mark.parametrize("split", [None, 2, [1, 3, 1]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_split(split: Any, keepdims: int) -> None:
    constants: dict[str, Any] = {} if split is None else {"split": np.array(split)}
    nodes = [
        node("SplitToSequence", " ".join(["x", *constants]), "s", axis=1, keepdims=keepdims),
        node("SequenceAt", "s one", "y"),
        node("SequenceLength", "s", "n"),
    ]
    constants["one"] = np.int64(1)
    model = build(
        nodes, [("x", FLOAT, (2, 5))], [("y", FLOAT, None), ("n", INT64, None)], constants
    )
    feed = {"x": noise(2, 5)}
    artifact = hybridc.compile(model, verify="off")
    assert not artifact.regions
    got = hybridc.InferenceSession(artifact).run(None, feed)
    # ONNX Runtime fails where sizes are given and axes are not kept, which ONNX ignores then.
    for value, right in zip(got, ReferenceEvaluator(model).run(None, feed), strict=True):
        if value.ndim == np.ndim(right):
            np.testing.assert_array_equal(value, right)
        else:
            np.testing.assert_array_equal(np.squeeze(value), right)


@pytest.mark.parametrize("split", [1, 2, [1, 3, 1]])
def test_split_in_a_region_keeps_axes_of_given_sizes(split: Any) -> None:
    """ONNX ignores `keepdims` then; ONNX Runtime fails, or drops the axis.  Verified, too."""
    nodes = [
        node("SplitToSequence", "x split", "s", axis=1, keepdims=0),
        node("SequenceAt", "s place", "y"),
    ]
    given = [("x", FLOAT, (2, 5)), ("place", INT64, ())]
    model = build(nodes, given, [("y", FLOAT, None)], {"split": np.array(split)})
    feed = {"x": noise(2, 5), "place": np.array(0)}
    artifact = hybridc.compile(model)
    assert artifact.regions
    (got,) = hybridc.InferenceSession(artifact).run(None, feed)
    size = split if isinstance(split, int) else split[0]
    np.testing.assert_array_equal(got, feed["x"][:, :size], strict=True)


def test_grown_in_a_loop() -> None:
    """This went on for ever: TVM walks through the fields of a variable without an end."""
    sequence = helper.make_tensor_sequence_value_info
    body = helper.make_graph(
        [node("SequenceInsert", "s x", "t"), node("Identity", "go", "on")],
        "turn",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("go", BOOL, []),
            sequence("s", FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", BOOL, []), sequence("t", FLOAT, None)],
    )
    nodes = [
        node("SequenceEmpty", "", "e"),
        node("Loop", "trips yes e", "l", body=body),
        node("ConcatFromSequence", "l", "y", axis=0),
    ]
    constants = {"trips": np.int64(3), "yes": np.array(True)}
    model = build(nodes, [("x", FLOAT, (2, 3))], [("y", FLOAT, None)], constants)
    agrees(model, {"x": noise(2, 3)})


def test_a_map_comes_out_of_a_region() -> None:
    """This ended the process: ONNX Runtime has no copy of a bound map."""
    options: dict[str, Any] = {"coefficients": [0.1, 0.2, 0.3, -0.4], "intercepts": [0.1, -0.1]}
    names = ["a", "b"]
    domain = "ai.onnx.ml"
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["l", "p"],
            domain=domain,
            classlabels_strings=names,
            **options,
        ),
        helper.make_node("ZipMap", ["p"], ["z"], domain=domain, classlabels_strings=names),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 3)]
    made = [("l", TensorProto.STRING, None)]
    model = build(nodes, [("x", FLOAT, (3, 2))], made, opset_imports=opsets, ir_version=9)
    score = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(FLOAT, []))
    kind = helper.make_sequence_type_proto(score)
    model.graph.output.append(helper.make_value_info("z", kind))
    artifact = hybridc.compile(model, verify="off")
    feed = {"x": noise(3, 2)}
    labels, scores = hybridc.InferenceSession(artifact).run(None, feed)
    right: Any = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    np.testing.assert_array_equal(labels, right[0])
    assert [each.keys() for each in scores] == [each.keys() for each in right[1]]
    for one, other in zip(scores, right[1], strict=True):
        assert one == pytest.approx(other)


def test_an_operand_that_a_loop_leaves_out_is_refused() -> None:
    """This ended the process: TVM follows what is not there."""
    values = {"acc": FLOAT, "go": BOOL, "i": INT64}
    given = [
        helper.make_tensor_value_info(name, values[name], ["n", 3] if name == "acc" else [])
        for name in ("i", "go", "acc")
    ]
    body = helper.make_graph(
        [node("Concat", "acc x", "more", axis=0), node("Identity", "go", "on")],
        "turn",
        given,
        [
            helper.make_tensor_value_info("on", BOOL, []),
            helper.make_tensor_value_info("more", FLOAT, ["m", 3]),
        ],
    )
    loop = helper.make_node("Loop", ["trips", "yes", ""], ["y"], body=body)
    constants = {"trips": np.int64(3), "yes": np.array(True)}
    model = build([loop], [("x", FLOAT, (2, 3))], [("y", FLOAT, ["k", 3])], constants)
    with pytest.raises(ModelError):
        hybridc.compile(model)


def test_images_without_pixels_have_no_mean() -> None:
    nodes = [node(f"Global{kind}Pool", "x", kind) for kind in ("Average", "Max", "Lp")]
    made = [(kind, FLOAT, None) for kind in ("Average", "Max", "Lp")]
    model = build(nodes, [("x", FLOAT, (1, 2, 0, 3))], made)
    session = hybridc.InferenceSession(hybridc.compile(model, verify="off"))
    average, largest, norm = session.run(None, {"x": np.zeros((1, 2, 0, 3), np.float32)})
    assert average.shape == largest.shape == norm.shape == (1, 2, 1, 1)
    assert np.isnan(average).all()
    assert np.isneginf(largest).all()
    assert not norm.any()
