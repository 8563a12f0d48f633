"""What open sizes decide: widths of padding, numbers of elements and of windows, and branches."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from onnx_models import FLOAT, build, node, noise

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import ModelError
from hybridc.compiler.runtime.session import InferenceSession

IMAGE: list[Any] = ["n", 2, "h", "w"]
ZERO, ONE, FOUR, FIVE = (np.array([number]) for number in (0, 1, 4, 5))


def _branch(operation: Any) -> Any:
    (name,) = operation.output
    value = helper.make_tensor_value_info(name, FLOAT, None)
    return helper.make_graph([operation], name, [], [value])


def _pooled(stride: int) -> list[Any]:
    options = {"kernel_shape": [3, 4], "pads": [1, 2, 1, 1], "strides": [stride] * 2}
    return [node("AveragePool", "x", "y", **options, ceil_mode=1, count_include_pad=1)]


def _to_a_multiple(mode: str) -> list[Any]:
    padded = helper.make_node("Pad", ["x", "widths", "", "axis"], ["y"], mode=mode)
    return [
        node("Shape", "x", "shape", start=0, end=1),
        node("Mod", "shape four", "over"),
        node("Sub", "four over", "less"),
        node("Mod", "less four", "width"),
        node("Concat", "one width", "widths", axis=0),
        padded,
    ]


SQUEEZED = [
    node("Shape", "p", "shape", start=2, end=3),
    node("Equal", "shape one", "alone"),
    node("Squeeze", "alone", "c"),
    node(
        *("If", "c", "y"),
        then_branch=_branch(node("Squeeze", "p axis", "a")),
        else_branch=_branch(node("Identity", "p", "b")),
    ),
]
CASES: dict[str, tuple[list[Any], list[Any], dict[str, Any]]] = {
    **{f"windows by {stride}": (_pooled(stride), IMAGE, {}) for stride in (2, 3)},
    **{
        f"up to a multiple by {mode}": (
            _to_a_multiple(mode),
            ["n", 3],
            {"four": FOUR, "one": ONE, "axis": np.array([0])},
        )
        for mode in ("constant", "edge")
    },
    "best of so many": (
        [
            node("Shape", "x", "shape", start=1),
            node("Concat", "shape five", "both", axis=0),
            node("ReduceMin", "both", "k"),
            node("TopK", "x k", "y z", axis=1),
        ],
        [2, "n"],
        {"five": FIVE},
    ),
    "branch": (
        [node("MaxPool", "x", "p", kernel_shape=[2, 1]), *SQUEEZED],
        ["n", 2, 2, "w"],
        {"one": ONE, "axis": np.array([2])},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_open_sizes_decide(name: str) -> None:
    nodes, shape, constants = CASES[name]
    made = [("y", FLOAT, None), *([("z", 7, None)] if name.startswith("best") else [])]
    proto = build(nodes, [("x", FLOAT, shape)], made, constants)
    outcome = driver.compile_source(proto, Options(threads=1, verify="off"))
    session = InferenceSession(outcome.artifact, 1)
    reference = onnxruntime.InferenceSession(proto.SerializeToString())
    for count in (3, 4, 5, 8):
        sizes = [count + i if isinstance(size, str) else size for i, size in enumerate(shape)]
        feed = {"x": noise(*sizes)}
        wanted: Any = reference.run(None, feed)
        for got, right in zip(session.run(None, feed), wanted, strict=True):
            assert got.shape == right.shape
            np.testing.assert_allclose(got, right, 1e-3, 1e-4)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ReduceSum", "shape", "made", noop_with_empty_axes=1)],  # of no axes
        [
            node("Unsqueeze", "shape zero", "row"),
            node("Concat", "row row", "rows", axis=0),
            node("ReduceMax", "rows zero", "made", keepdims=0),  # of each column
        ],
    ],
)
def test_reductions_of_sizes_that_are_none_of_a_whole_list(nodes: list[Any]) -> None:
    nodes = [node("Shape", "x", "shape"), *nodes, node("Expand", "x made", "y")]
    given, made = [("x", FLOAT, ["n", "m"])], [("y", FLOAT, None)]
    with pytest.raises(ModelError, match="shape of its result does not follow"):
        driver.compile_source(build(nodes, given, made, {"zero": ZERO}), Options(threads=1))


def test_an_axis_that_is_reflected_has_two_elements() -> None:
    nodes = [node("Pad", "x widths", "y", mode="reflect")]
    constants = {"widths": np.array([0, 1, 0, 0])}
    proto = build(nodes, [("x", FLOAT, ["n", "m"])], [("y", FLOAT, None)], constants)
    notes = driver.compile_source(proto, Options(threads=1)).report.notes
    assert any("m is at least 2" in note for note in notes)


def test_a_number_of_elements_beyond_an_axis_is_refused() -> None:
    nodes = [
        node("Shape", "x", "shape", start=1),
        node("Add", "shape five", "k"),
        node("TopK", "x k", "y z", axis=1),
    ]
    given, made = [("x", FLOAT, [2, "n"])], [("y", FLOAT, None)]
    with pytest.raises(ModelError, match=r"TopK.*n \+ .*5.* of n elements"):
        driver.compile_source(build(nodes, given, made, {"five": FIVE}), Options(threads=1))
