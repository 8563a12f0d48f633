"""Slices whose places and steps lie beyond their axis, against ONNX Runtime."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_models import FLOAT, INT64, build, check, node

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.frontend import load
from hybridc.compiler.frontends.onnx_import.folding import fold
from hybridc.compiler.runtime.session import InferenceSession

EXTENT = 5
LARGEST, LEAST = 2**63 - 1, -(2**63)
MOST, FEWEST = 2**31 - 1, -(2**31)
PLACES = (0, 2, 4, 5, 6, -1, -3, -5, -6, MOST, FEWEST, LARGEST, LEAST)
STEPS = (1, 2, 7, LARGEST, -1, -2, -7, LEAST)
# All kinds of both ends, for what is compiled.
SOME = [
    *product((-1, -6, 2, LARGEST), (0, -6, MOST, LARGEST, LEAST), (-1, -2)),
    *product((0, -9, 6), (-1, LARGEST, LEAST), (1, LARGEST)),
    *[(4, 1, 1), (MOST, FEWEST, LEAST), (FEWEST, MOST, 7)],
]
Place = tuple[int, int, int]


def slices(places: Sequence[Place], opset: int, computed: bool = False) -> tuple[Any, Any]:
    """A node for each place, along the second axis; operands are constants, or computed of some."""
    nodes, constants = [], {"axis": np.array([1]), "none": np.array([0])}
    for index, place in enumerate(places):
        names = [f"{name}{index}" for name in ("start", "end", "step")]
        constants |= {name: np.array([value]) for name, value in zip(names, place, strict=True)}
        if computed:
            nodes += [node("Add", f"{name} none", f"{name}c") for name in names]
            names = [f"{name}c" for name in names]
        start, end, step = names
        nodes.append(node("Slice", f"x {start} {end} axis {step}", f"y{index}"))
    outputs = [(f"y{index}", FLOAT, None) for index in range(len(places))]
    shape = [2, EXTENT]
    return build(nodes, [("x", FLOAT, shape)], outputs, constants, opset), outputs


def runtime(model: Any, feed: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it warns that ONNX infers other shapes
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feed)


@pytest.mark.parametrize("opset", [10, 11, 13, 20])
def test_slices_of_constants(opset: int) -> None:
    """Which are folded as the model is read."""
    places = list(product(PLACES, PLACES, STEPS))
    x = np.arange(2 * EXTENT, dtype=np.float32).reshape(2, EXTENT)
    model, outputs = slices(places, opset)
    wanted = runtime(model, {"x": x})
    model.graph.initializer.append(onnx.numpy_helper.from_array(x, "x"))
    del model.graph.input[:]
    folded = {
        each.name: onnx.numpy_helper.to_array(each) for each in fold(model).proto.graph.initializer
    }
    for place, (name, *_), right in zip(places, outputs, wanted, strict=True):
        np.testing.assert_array_equal(folded[name], right, f"{place}")


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("opset", [10, 11, 13])
def test_slices_of_data(opset: int, computed: bool) -> None:
    check(load(slices(SOME, opset, computed)[0]))


@pytest.mark.parametrize("rows", [2, "n"])
def test_slices_by_attributes(rows: int | str) -> None:
    """As before opset 10, without steps."""
    places = list(product((0, 2, -1, -5, -6, FEWEST), (4, 5, -1, -6, MOST, LARGEST)))
    nodes = [
        node("Slice", "x", f"y{index}", starts=[start], ends=[end], axes=[1])
        for index, (start, end) in enumerate(places)
    ]
    nodes.append(node("Slice", "x", "front", starts=[0, 1], ends=[2, 3]))
    outputs = [(each.output[0], FLOAT, None) for each in nodes]
    given = [("x", FLOAT, [rows, EXTENT])]
    model = build(nodes, given, outputs, opset=9, ir_version=4)
    artifact = driver.compile_source(model, Options(threads=1, verify="off")).artifact
    feed = {"x": np.arange(2 * EXTENT, dtype=np.float32).reshape(2, EXTENT)}
    answers = InferenceSession(artifact, 1).run(None, feed)
    for made, got, right in zip(nodes, answers, runtime(model, feed), strict=True):
        np.testing.assert_array_equal(got, right, str(made))


@pytest.mark.parametrize("shape", [["n", EXTENT], [2, "n"]])
def test_slices_beside_and_along_an_open_axis(shape: list[int | str]) -> None:
    model, _ = slices(SOME, 13)
    for axis, size in enumerate(shape):
        dim = model.graph.input[0].type.tensor_type.shape.dim[axis]
        if isinstance(size, str):
            dim.dim_param = size
    artifact = driver.compile_source(model, Options(threads=1, verify="off")).artifact
    session = InferenceSession(artifact, 1)
    for count in (1, 2, 5, 9):
        extents = [count if isinstance(size, str) else size for size in shape]
        x = np.arange(np.prod(extents), dtype=np.float32).reshape(extents)
        for place, got, right in zip(
            SOME, session.run(None, {"x": x}), runtime(model, {"x": x}), strict=True
        ):
            np.testing.assert_array_equal(got, right, f"{place} of {count}")


def test_slices_of_a_shape() -> None:
    """With an open size, which is no constant."""
    places = [(-1, LARGEST, -1), (-9, -9, -1), (0, LEAST, -2), (-1, LEAST, -1), (2, 0, -1)]
    nodes, constants = [node("Shape", "x", "shape")], {"axis": np.array([0])}
    for index, place in enumerate(places):
        names = [f"{name}{index}" for name in ("start", "end", "step")]
        constants |= {name: np.array([value]) for name, value in zip(names, place, strict=True)}
        start, end, step = names
        nodes.append(node("Slice", f"shape {start} {end} axis {step}", f"y{index}"))
    outputs = [(f"y{index}", INT64, None) for index in range(len(places))]
    model = build(nodes, [("x", FLOAT, [2, "n", 4])], outputs, constants)
    artifact = driver.compile_source(model, Options(threads=1, verify="off")).artifact
    feed = {"x": np.zeros((2, 7, 4), np.float32)}
    for got, right in zip(
        InferenceSession(artifact, 1).run(None, feed), runtime(model, feed), strict=True
    ):
        np.testing.assert_array_equal(got, right)
