"""Shapes as exporters of traced models write them, of which onnx infers less than there is."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx_models import FLOAT, build, check, node, noise

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.frontend import load
from hybridc.compiler.runtime.session import InferenceSession

# Rows of 6, which onnx no longer knows behind a shape that is computed of an open size.
ROWS = (
    node("Shape", "x", "xs"),
    node("Slice", "xs zero one", "n"),
    node("Concat", "n six", "two", axis=0),
    node("Reshape", "x two", "rows"),
    node("Shape", "rows", "rs"),
    node("Gather", "rs first", "width", axis=0),
)
NUMBERS = {
    **{"zero": np.array([0]), "one": np.array([1]), "six": np.array([6]), "first": np.array(1)},
    **{"pairs": np.array([-1, 2]), "back": np.array([-1]), "end": np.array([-9])},
    "none": np.array([0, 0]),
}


def agree(proto: Any, *shapes: tuple[int, ...]) -> str:
    """Compile, and compare with ONNX Runtime at these shapes; returns the input's description.

    An input `_` of a node is one that is left out.
    """
    for each in proto.graph.node:
        each.input[:] = ["" if name == "_" else name for name in each.input]
    artifact = driver.compile_source(proto, Options(threads=1, verify="off")).artifact
    session = InferenceSession(artifact, 1)
    reference = onnxruntime.InferenceSession(proto.SerializeToString())
    for shape in shapes:
        feed = {"x": noise(*shape)}
        (got,), (wanted,) = session.run(None, feed), reference.run(None, feed)
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, np.asarray(wanted), 1e-3, 1e-4)
    return artifact.inputs[0].describe()


@pytest.mark.parametrize("operator", ["GreaterOrEqual", "LessOrEqual"])
@pytest.mark.parametrize("opset", [12, 15, 16])
def test_shapes_behind_comparisons_are_known(operator: str, opset: int) -> None:
    nodes = [
        node(operator, "x y", "larger"),
        node("Shape", "larger", "shape"),
        node("Expand", "z shape", "wide"),
    ]
    inputs = [("x", FLOAT, (2, 1)), ("y", FLOAT, (3,)), ("z", FLOAT, (1, 1))]
    model = load(build(nodes, inputs, [("wide", FLOAT, None)], opset=opset))
    assert check(model)[0].shape == (2, 3)


def test_a_number_that_only_the_import_knows_is_a_constant() -> None:
    nodes = [
        *ROWS,
        node("Div", "width two_", "half"),
        node("Reshape", "half one", "k"),
        node("TopK", "rows k", "y i"),
    ]
    constants = {**NUMBERS, "two_": np.array(2)}
    proto = build(nodes, [("x", FLOAT, ["n", 2, 3])], [("y", FLOAT, None)], constants)
    assert agree(proto, (1, 2, 3), (4, 2, 3)) == "x float32[n,2,3]"


def test_paddings_that_are_turned_as_a_tracer_does() -> None:
    nodes = [
        *ROWS,
        node("Reshape", "width one", "w"),
        node("Concat", "one w none", "last", axis=0),  # the last axis first, as torch lists them
        node("Reshape", "last pairs", "table"),
        node("Slice", "table back end zero back", "turned"),
        node("Transpose", "turned", "sides", perm=[1, 0]),
        node("Reshape", "sides back", "widths"),
        node("Pad", "rows widths", "y"),
    ]
    proto = build(nodes, [("x", FLOAT, ["n", 2, 3])], [("y", FLOAT, None)], NUMBERS)
    assert agree(proto, (1, 2, 3), (4, 2, 3)) == "x float32[n,2,3]"


def test_a_step_that_fits_by_chance_does_not_hide_the_next() -> None:
    """At the first eight multiples of 31 the two sizes are equal, at others they are not."""
    windows: dict[str, Any] = {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}
    halves = [node("MaxPool", f"a{i}", f"a{i + 1}", **windows) for i in range(5)]
    nodes = [
        node("Identity", "x", "a0"),
        *halves,
        node("Resize", "a5 _ twice", "wide", mode="nearest"),
        node("Concat", "wide a4", "y", axis=1),
    ]
    constants = {"twice": np.array([1, 1, 2], np.float32)}
    proto = build(nodes, [("x", FLOAT, [1, 2, "length"])], [("y", FLOAT, None)], constants)
    assert agree(proto, (1, 2, 32), (1, 2, 320)) == "x float32[1,2,length:32..%32]"
