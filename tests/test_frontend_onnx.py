"""ONNX models come in whole and right; the oracle is ONNX Runtime."""

import re
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_models import FLOAT, INT64, build, check, node, noise, relu, shared_axes

from hybridc.compiler.errors import InputError, ModelError
from hybridc.compiler.frontend import load, parse_shape
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.model import TensorSpec


def test_convolution_with_batch_norm() -> None:
    constants = {"w": noise(4, 3, 3, 3), "b": noise(4), "s": noise(4), "v": np.abs(noise(4)) + 0.5}
    model = build(
        [
            node("Conv", "x w b", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
            node("BatchNormalization", "c s b b v", "n"),
            node("Relu", "n", "y"),
        ],
        [("x", FLOAT, [1, 3, 8, 8])],
        [("y", FLOAT, None)],
        constants,
    )
    check(load(model))


def test_gemm_and_matmul_with_a_big_weight() -> None:
    """A weight beyond the size that stays in the graph is still a constant of `main`."""
    model = build(
        [node("Gemm", "x w b", "g", transB=1), node("MatMul", "g v", "y")],
        [("x", FLOAT, [2, 300])],
        [("y", FLOAT, None)],
        {"w": noise(200, 300), "b": noise(200), "v": noise(200, 5)},
    )
    loaded = load(model)
    assert len(loaded.module["main"].params) == 1
    check(loaded)


@pytest.mark.parametrize(
    "constants",
    [
        {"widths": np.array([0, 1, 2, 0])},
        {"widths": np.array([0, 1, 2, 0]), "fill": np.float32(1.5)},
        {"widths": np.array([1, -2]), "fill": np.float32(1.5), "axes": np.array([-1])},
    ],
)
def test_constant_padding(constants: dict[str, Any]) -> None:
    nodes = [node("Pad", " ".join(["x", *constants]), "y")]
    check(load(build(nodes, [("x", FLOAT, [3, 4])], [("y", FLOAT, None)], constants)))


@pytest.mark.parametrize("inputs", [["x"], ["x", "low"], ["x", "", "high"], ["x", "low", "high"]])
def test_clip(inputs: list[str]) -> None:
    constants = {"low": np.float32(-0.5), "high": np.float32(0.25)}
    nodes = [helper.make_node("Clip", inputs, ["y"])]
    check(load(build(nodes, [("x", FLOAT, [50])], [("y", FLOAT, None)], constants)))


def test_names_order_and_dtypes_are_kept() -> None:
    model = build(
        [node("Add", "b.2 a/1", "sum"), node("Cast", "sum", "out:int", to=INT64)],
        [("b.2", FLOAT, [2]), ("a/1", FLOAT, [2])],
        [("out:int", INT64, None), ("sum", FLOAT, None)],
    )
    loaded = load(model)
    assert loaded.inputs == (
        TensorSpec("b.2", (2,), "float32"),
        TensorSpec("a/1", (2,), "float32"),
    )
    assert loaded.outputs == (
        TensorSpec("out:int", (2,), "int64"),
        TensorSpec("sum", (2,), "float32"),
    )
    check(loaded, {"b.2": noise(2) * 9, "a/1": noise(2) * 9})


def test_the_proto_given_is_not_changed() -> None:
    model = relu(["n", 3])
    before = model.SerializeToString(deterministic=True)
    load(model, shapes={"x": (2, 3)})
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,)])
def test_scalar_and_empty_inputs(shape: tuple[int, ...]) -> None:
    assert load(relu(shape)).inputs[0].shape == shape
    check(load(relu(shape)))


def test_outputs_that_are_inputs_or_constants() -> None:
    model = build(
        [node("Relu", "x", "y"), node("Identity", "c", "d")],
        [("x", FLOAT, [2])],
        [("y", FLOAT, None), ("d", FLOAT, None), ("c", FLOAT, [3])],
        {"c": noise(3)},
    )
    check(load(model))


def test_initialisers_among_the_inputs_are_weights() -> None:
    """Before IR 4 every initialiser had to be listed as an input."""
    model = build(
        [node("Add", "x w", "y")],
        [("w", FLOAT, [3]), ("x", FLOAT, [3])],
        [("y", FLOAT, [3])],
        {"w": noise(3)},
        opset=8,
        ir_version=3,
    )
    loaded = load(model)
    assert [spec.name for spec in loaded.inputs] == ["x"]
    check(loaded)


def test_axes_shared_by_name_are_given_once() -> None:
    model = load(shared_axes(), shapes={"b": (2, 3)})
    assert [spec.shape for spec in model.inputs] == [(2, 3), (2, 3)]
    check(model)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "operator 'Add' .* open sizes (n, m) from which the shape .*; fix them with --shape"),
        ({"a": (2, 3)}, "operator 'Add' .* open sizes (m) from which"),
        ({"aa": (2, 3)}, "--shape aa: no input or axis has this name; did you mean 'a'?"),
        ({"a": (2, 4)}, "--shape a=2x4: axis 1 of input 'a' is 3, not 4"),
        ({"a": (2,)}, "--shape a=2: input 'a' has 2 axes: nx3"),
        ({"a": (2, 3), "b": (4, 3)}, "axis 0 ('n') of input 'b' is 2, not 4"),
        ({"n": (2, 3)}, "--shape n=2x3: an axis has one size"),
        ({"a": "nx?"}, "--shape a=nx?: axis 1 of input 'a' is 3, not open"),
        ({"n": "1..4", "b": "2x3"}, "axis 0 ('n') of input 'b' is n:1..4, not 2"),
        (
            {"a": "n:1..4,3", "b": "n:1..5,3"},
            "n:1..4 and n:1..5: a size can have only one pair of bounds",
        ),
        ({"n": 2, "m": 3, "b": "2"}, "--shape b=2: input 'b' has 2 axes: nxm"),
    ],
)
def test_axes_that_cannot_be_bound(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    escaped = message.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")
    with pytest.raises(ModelError, match=escaped):
        load(shared_axes(), shapes=shapes)


def test_unknown_rank() -> None:
    with pytest.raises(ModelError, match="shape of input 'x' is not known; give --shape x="):
        load(relu(None))
    check(load(relu(None), shapes={"x": (2, 5)}))


def test_stale_shapes_of_intermediate_tensors_are_not_believed() -> None:
    model = build(
        [node("Relu", "x", "r"), node("Shape", "r", "s"), node("Reshape", "r s", "y")],
        [("x", FLOAT, ["n", 3])],
        [("y", FLOAT, None)],
    )
    model.graph.value_info.append(helper.make_tensor_value_info("r", FLOAT, [1, 3]))
    loaded = load(model, shapes={"x": (4, 3)})
    assert loaded.outputs[0].shape == (4, 3)
    x = noise(4, 3)
    np.testing.assert_array_equal(evaluate(loaded.module, [x])[0], np.maximum(x, 0))


@pytest.mark.parametrize("text", ["x=1x3x224x224", "x=1,3,224,224"])
def test_parse_shape(text: str) -> None:
    assert parse_shape(text) == ("x", (1, 3, 224, 224))


def test_parse_shape_of_names_with_signs_and_of_scalars() -> None:
    assert parse_shape("a=b/c:0=2") == ("a=b/c:0", (2,))
    assert parse_shape("x=scalar") == ("x", ())


@pytest.mark.parametrize("text", ["", "x", "x=", "=1x2", "x=1x%", "x=-1", "x=1x", "x=1.5"])
def test_parse_shape_refuses(text: str) -> None:
    with pytest.raises(InputError, match="of the form NAME=1x3x224x224"):
        parse_shape(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x=99999999999x3", "99999999999 is not a valid size: the most is 2147483647$"),
        ("x=1..99999999999", "99999999999 is not a valid size: the most is 2147483647$"),
        ("x=2*n,3", r"'2\*n' is not a size: .* \?%2 is an open size that is a multiple of 2;"),
        ("x=n*4", r"'n\*4' is not a size: .* \?%4 is"),
    ],
)
def test_what_is_wrong_with_a_size_is_said_first(text: str, told: str) -> None:
    with pytest.raises(InputError, match=f"^--shape {re.escape(repr(text))}: {told}"):
        parse_shape(text)


def test_shape_arithmetic_is_folded() -> None:
    """Flatten as exporters write it: Shape, Gather, Unsqueeze, Concat, Reshape."""
    model = build(
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Unsqueeze", "n axes", "n1"),
            node("Concat", "n1 minus", "target", axis=0),
            node("Reshape", "x target", "y"),
        ],
        [("x", FLOAT, ["n", 3, 4])],
        [("y", FLOAT, ["n", 12])],
        {"zero": np.int64(0), "axes": np.array([0]), "minus": np.array([-1])},
    )
    loaded = load(model, shapes={"x": (2, 3, 4)})
    assert "5 operators in the file, 1 after its shapes were made static" in loaded.notes
    check(loaded)


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"value_float": 2.5}, FLOAT),
        ({"value_floats": [1.0, 2.0]}, FLOAT),
        ({"value_int": 3}, INT64),
        ({"value_ints": [3, 4]}, INT64),
    ],
)
def test_every_form_of_constant(attributes: dict[str, Any], kind: int) -> None:
    model = build(
        [node("Constant", "", "c", **attributes), node("Add", "x c", "y")],
        [("x", kind, [2])],
        [("y", kind, [2])],
    )
    check(load(model))


def test_axes_computed_by_the_graph() -> None:
    model = build(
        [node("Sub", "one two", "axes"), node("ReduceSum", "x axes", "y", keepdims=0)],
        [("x", FLOAT, [2, 3])],
        [("y", FLOAT, None)],
        {"one": np.array([1]), "two": np.array([2])},
    )
    check(load(model))


def test_constant_condition_chooses_its_branch() -> None:
    """As exporters write a squeeze; both branches use the same inner names."""

    def branch(op: str) -> Any:
        nodes = [node(op, "x", "t"), node("Add", "t c", "out")]
        constant = [numpy_helper.from_array(np.array(1, np.float32), "c")]
        out = [helper.make_tensor_value_info("out", FLOAT, None)]
        return helper.make_graph(nodes, op, [], out, constant)

    unsupported = "LpNormalization"
    model = build(
        [
            node("Size", "x", "n"),
            node("Equal", "n six", "cond"),
            node("If", "cond", "y", then_branch=branch("Neg"), else_branch=branch(unsupported)),
            node("If", "cond", "z", then_branch=branch("Abs"), else_branch=branch("Neg")),
        ],
        [("x", FLOAT, [2, 3])],
        [("y", FLOAT, None), ("z", FLOAT, None)],
        {"six": np.int64(6)},
    )
    check(load(model))


def test_huge_constants_are_not_computed() -> None:
    """Folding would take 4 TB; the refusal is a line, and comes at once."""
    model = build(
        [node("ConstantOfShape", "s", "z"), node("Add", "x z", "y")],
        [("x", FLOAT, [1])],
        [("y", FLOAT, None)],
        {"s": np.array([1_000_000, 1_000_000])},
    )
    with pytest.raises(ModelError, match="has 1000000000000 elements; the most is"):
        load(model)


def test_newest_versions_have_a_reference() -> None:
    """Stamped with an IR and opset that ONNX Runtime does not read."""
    model = build(
        [node("Relu", "x", "y")], [("x", FLOAT, [3])], [("y", FLOAT, [3])], opset=28, ir_version=14
    )
    check(load(model))


def test_versions_of_the_future_are_refused() -> None:
    with pytest.raises(ModelError, match=r"not a valid ONNX model: .*ir_version"):
        load(
            build([node("Relu", "x", "y")], [("x", FLOAT, [3])], [("y", FLOAT, [3])], ir_version=99)
        )
