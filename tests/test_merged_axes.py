"""Reductions whose kept axes are one to the kernel, against numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ValueInfoProto, helper, numpy_helper, shape_inference

import hybridc
from hybridc.compiler.model import Array

REFERENCES: dict[str, Callable[..., Array]] = {
    "ReduceMax": np.max,
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMin": np.min,
}


def ran(nodes: list[Any], x: Array, threads: int = 1, **constants: Array) -> Array:
    """What an artifact makes of x."""
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    given = helper.make_tensor_value_info("x", kind, x.shape)
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "reduced", [given], [ValueInfoProto(name="y")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    model = shape_inference.infer_shapes(model)
    artifact = hybridc.compile(model, verify="off", threads=threads)
    (got,) = hybridc.InferenceSession(artifact, threads).run(None, {"x": x})
    return np.asarray(got)


def values(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """Numbers between -50 and 50."""
    rng = np.random.default_rng(0)
    return np.asarray(rng.standard_normal(shape) * 10).clip(-50, 50).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((3, 5, 7, 13), (1,)),
        ((2, 9, 17, 1), (0, 1)),
        ((1, 6, 1, 5), (1,)),
        ((2, 3, 5, 7), (0, 2)),
        ((4, 1, 3, 1), (0,)),
        ((5, 1, 1, 1), (0,)),
        ((2, 4, 31, 31), (1,)),
        ((3, 2, 5, 2, 3), (1, 2)),
        ((6, 11, 1), (1,)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_kept_axes_are_one(shape: tuple[int, ...], axes: tuple[int, ...], dtype: Any) -> None:
    x = values(shape, dtype)
    for number, (operator, reference) in enumerate(REFERENCES.items()):
        if operator == "ReduceMean" and dtype is np.int64:
            continue
        node = helper.make_node(operator, ["x", "a"], ["y"], keepdims=number % 2)
        got = ran([node], x, threads=1 + number % 2, a=np.array(axes))
        wanted = reference(x, axis=axes, keepdims=bool(number % 2))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 5, 7, 13), 1), ((2, 9, 3, 1), 1), ((4, 3, 5), 0), ((1, 7, 2, 2), 1)]
)
@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
def test_places_of_extremes(operator: str, shape: tuple[int, ...], axis: int) -> None:
    """The first of several, and of a NaN."""
    x = np.round(values(shape))
    x[(-1,) * len(shape)] = np.nan
    node = helper.make_node(operator, ["x"], ["y"], axis=axis, keepdims=0)
    reference = np.argmax if operator == "ArgMax" else np.argmin
    np.testing.assert_array_equal(ran([node], x), reference(x, axis=axis))


def test_a_nan_is_the_largest_of_its_row_alone() -> None:
    x = values((2, 6, 5, 3))
    x[1, 2, 3, 1] = np.nan
    node = helper.make_node("ReduceMax", ["x", "a"], ["y"], keepdims=0)
    np.testing.assert_array_equal(ran([node], x, a=np.array([1])), np.max(x, axis=1))


def test_operands_of_fewer_axes_keep_theirs() -> None:
    """A factor of each channel stands without the axes behind it, a square of one with them."""
    x, factor, bias = values((2, 5, 4, 7)), values((5, 4, 1)), values((4, 7))
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", "a"], ["sums"], keepdims=0),
        helper.make_node("Add", ["sums", "bias"], ["y"]),
    ]
    got = ran(nodes, x, factor=factor, bias=bias, a=np.array([1]))
    np.testing.assert_allclose(got, (x * factor).sum(1) + bias, rtol=1e-5, atol=1e-4)


def test_transposed_axes_are_not_neighbours() -> None:
    x = values((3, 5, 7, 4))
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("ReduceSum", ["t", "a"], ["s"], keepdims=0),
        helper.make_node("ReduceSum", ["twice", "a"], ["z"], keepdims=0),
        helper.make_node("Transpose", ["z"], ["w"], perm=[0, 2, 1]),
        helper.make_node("Add", ["s", "w"], ["y"]),
    ]
    wanted = 3 * x.sum(1).transpose(0, 2, 1)
    np.testing.assert_allclose(ran(nodes, x, a=np.array([1])), wanted, rtol=1e-5, atol=1e-4)
