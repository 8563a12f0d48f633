"""NaN, infinities and zero divisors on a GPU, as on the host; the oracles are numpy and torch."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cuda_emulator import needs_compiler
from cuda_models import execute, scheduled
from onnx import helper
from onnx_models import build
from test_edge_values import holes

from hybridc.compiler import frontend
from hybridc.compiler.configuration import plans
from hybridc.compiler.model import Array

pytestmark = needs_compiler
Operators = Mapping[str, tuple[str, str, Mapping[str, Any], Callable[..., Any]]]

POINTWISE: Operators = {
    "relu": ("Relu", "x", {}, lambda x, y: x.relu()),
    "clip": ("Clip", "x low high", {}, lambda x, y: x.clamp(1, 2)),
    "max": ("Max", "x y", {}, torch.maximum),
    "min": ("Min", "x y", {}, torch.minimum),
    "elu": ("Elu", "x", {}, lambda x, y: torch.nn.functional.elu(x)),
    "sigmoid": ("Sigmoid", "x", {}, lambda x, y: x.sigmoid()),
    "tanh": ("Tanh", "x", {}, lambda x, y: x.tanh()),
    "gelu": ("Gelu", "x", {}, lambda x, y: x * (1 + (x / 2**0.5).erf()) / 2),
    "not a number": ("IsNaN", "x", {}, lambda x, y: x.isnan()),
    "infinite": ("IsInf", "x", {}, lambda x, y: x.isinf()),
    "equal": ("Equal", "x x", {}, lambda x, y: ~x.isnan()),
    "not below": ("Not", "below", {}, lambda x, y: ~(x < y)),
    "below": ("Less", "x y", {}, lambda x, y: x < y),
    "nothing": ("Sub", "x x", {}, lambda x, y: x - x),
    "times zero": ("Mul", "x zero", {}, lambda x, y: x * 0),
    "there and back": ("Sub", "moved far", {}, lambda x, y: x + FAR - FAR),
    "moved": ("Add", "x far", {}, lambda x, y: x + FAR),
}
REDUCED: Operators = {
    "largest": ("ReduceMax", "x axis", {"keepdims": 0}, lambda x, y: x.amax(1)),
    "least": ("ReduceMin", "x axis", {"keepdims": 0}, lambda x, y: x.amin(1)),
    "softmax": ("Softmax", "x", {"axis": 1}, lambda x, y: x.softmax(1)),
    "place": ("ArgMax", "x", {"axis": 1, "keepdims": 0}, lambda x, y: x.argmax(1)),
}
FAR = 12582912.0  # adding it rounds


def answers(operators: Operators, x: Array, y: Array) -> list[Array]:
    """What a GPU makes of x and y, an output for each operator."""
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    numbers = {"low": 1, "high": 2, "zero": 0, "far": FAR}
    with np.errstate(over="ignore"):
        constants: dict[str, Any] = {k: np.array(value, x.dtype) for k, value in numbers.items()}
    constants |= {"axis": np.array([1]), "down": np.array([2]), "across": np.array([3])}
    nodes = [
        helper.make_node(op, given.split(), [name], **options)
        for name, (op, given, options, _) in operators.items()
    ]
    nodes.sort(key=lambda node: not set(node.output) & {"below", "moved"})
    inputs = [(name, kind, x.shape) for name in ("x", "y")]
    model = build(nodes, inputs, [], constants)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in operators)
    model = onnx.shape_inference.infer_shapes(model)
    loaded = frontend.load(model, shapes={}, fallback=False)
    module, context = scheduled(loaded, plans.Options(target="sm_90a"))
    return execute(module, [x, y], context.target, 0)


@pytest.mark.parametrize("operators", [POINTWISE, REDUCED], ids=["pointwise", "reduced"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_nan_and_infinities(operators: Operators, dtype: str) -> None:
    x, y = holes((5, 67), dtype, 0), holes((5, 67), dtype, 2)
    if dtype == "float16":  # which has no such number
        operators = {name: told for name, told in operators.items() if "far" not in told[1]}
    right = [made(torch.tensor(x), torch.tensor(y)).numpy() for *_, made in operators.values()]
    share = {"float16": 4e-3, "float32": 2e-5}[dtype]
    for name, got, wanted in zip(operators, answers(operators, x, y), right, strict=True):
        np.testing.assert_allclose(got, wanted, share, share, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_largest_of_infinities_is_infinite(dtype: str) -> None:
    """Of rows in registers, of columns and of windows; -65504 and the like are numbers."""
    x = np.random.default_rng(0).standard_normal((1, 2, 40, 70)).astype(dtype)
    x[..., :6, :] = -np.inf
    x[..., 3] = -np.inf
    x[..., 9, :] = np.finfo(dtype).min
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    operators: Operators = {
        "row": ("ReduceMax", "x across", {"keepdims": 0}, lambda x, y: x.amax(3)),
        "column": ("ReduceMax", "x down", {"keepdims": 0}, lambda x, y: x.amax(2)),
        "window": ("MaxPool", "x", pool, lambda x, y: torch.max_pool2d(x, 2)),
        "least": ("ReduceMin", "y down", {"keepdims": 0}, lambda x, y: y.amin(2)),
    }
    if dtype == "float16":  # the emulator has no volatile ones, by which threads share a column
        operators = {name: told for name, told in operators.items() if "down" not in told[1]}
    right = [made(torch.tensor(x), torch.tensor(-x)).numpy() for *_, made in operators.values()]
    for name, got, wanted in zip(operators, answers(operators, x, -x), right, strict=True):
        np.testing.assert_array_equal(got, wanted, err_msg=name)


def test_integers_are_divided_by_anything() -> None:
    low, high = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    some = np.array([low, high, 0, 1, 7, -1, -7], np.int32)
    x, y = (part.ravel() for part in np.meshgrid(some, some))
    operators: Operators = {
        "quotient": ("Div", "x y", {}, np.divide),
        "rest": ("Mod", "x y", {}, np.mod),
    }
    quotient, rest = answers(operators, x, y)
    with np.errstate(all="ignore"):
        wide = np.where(y == 0, 0, np.trunc(x / np.where(y == 0, 1, y).astype(np.float64)))
        np.testing.assert_array_equal(quotient, wide.astype(np.int64).astype(np.int32))
        np.testing.assert_array_equal(rest, np.mod(x, y))
