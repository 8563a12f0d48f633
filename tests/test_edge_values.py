"""NaN, infinities, zero divisors and least integers; the oracles are numpy and torch."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.runtime.session import InferenceSession

Array = Any
FLOATS, INTEGERS = ("float32", "float16", "float64"), ("int8", "int32", "int64", "uint8", "uint32")


@cache
def compiled(
    operators: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, Any], ...]], ...],
    shape: tuple[int, ...],
    dtype: str,
) -> InferenceSession:
    """One model with an output for each operator of x and y; `a` is the list of one axis, 1."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node(name, given, [f"{name}{i}"], **dict(options))
        for i, (name, given, options) in enumerate(operators)
    ]
    inputs = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    outputs = [onnx.ValueInfoProto(name=node.output[0]) for node in nodes]
    constants = {
        "a": np.array([1]),
        "low": np.array(1, dtype),
        "high": np.array(2, dtype),
    }
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "edges", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    outcome = driver.compile_source(model, Options(verify="off", threads=2))
    return InferenceSession(outcome.artifact, 2)


def holes(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    """Random numbers, one in seven of which is NaN or infinite."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal(shape)
    x.flat[seed::7] = draw.choice([np.nan, np.nan, np.inf, -np.inf, -0.0], x.flat[seed::7].shape)
    return x.astype(dtype)


def check(got: Sequence[Array], wanted: Sequence[Array], dtype: str) -> None:
    tolerance = {"float16": 4e-3, "float32": 2e-5}.get(dtype, 1e-9)
    for value, right in zip(got, wanted, strict=True):
        assert value.shape == right.shape
        np.testing.assert_allclose(value, right, tolerance, tolerance)


@pytest.mark.parametrize("shape", [(5, 67), (3, 8), (1, 1)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_passes_through_elementwise_operators(dtype: str, shape: tuple[int, ...]) -> None:
    operators: Mapping[tuple[str, tuple[str, ...]], Any] = {
        ("Relu", ("x",)): lambda x, y: torch.relu(x),
        ("Clip", ("x", "low", "high")): lambda x, y: x.clamp(1, 2),
        ("Clip", ("x", "low")): lambda x, y: x.clamp(min=1),
        ("Max", ("x", "y")): torch.maximum,
        ("Min", ("x", "y")): torch.minimum,
        ("Max", ("x", "y", "low")): lambda x, y: torch.maximum(x, y).clamp(min=1),
        ("HardSigmoid", ("x",)): lambda x, y: (x * 0.2 + 0.5).clamp(0, 1),
        ("HardSwish", ("x",)): lambda x, y: torch.nn.functional.hardswish(x),
        ("Elu", ("x",)): lambda x, y: torch.nn.functional.elu(x),
        ("Sigmoid", ("x",)): lambda x, y: x.sigmoid(),
        ("Tanh", ("x",)): lambda x, y: x.tanh(),
        ("Exp", ("x",)): lambda x, y: x.exp(),
        ("Sign", ("x",)): lambda x, y: torch.from_numpy(np.sign(x.numpy())),  # torch forgets it
        ("Erf", ("x",)): lambda x, y: x.erf(),
        ("Softplus", ("x",)): lambda x, y: torch.nn.functional.softplus(x),
    }
    session = compiled(tuple((*key, ()) for key in operators), shape, dtype)
    x, y = holes(shape, dtype, 0), holes(shape, dtype, 2)
    wanted = [function(torch.tensor(x), torch.tensor(y)) for function in operators.values()]
    check(session.run(None, {"x": x, "y": y}), [value.numpy() for value in wanted], dtype)


@pytest.mark.parametrize("shape", [(6, 40), (3, 197), (7, 9, 16), (2, 3, 5)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_passes_through_reductions(dtype: str, shape: tuple[int, ...]) -> None:
    operators: Mapping[tuple[str, tuple[str, ...], tuple[tuple[str, Any], ...]], Any] = {
        ("ReduceMax", ("x", "a"), (("keepdims", 0),)): lambda x: x.max(1),
        ("ReduceMin", ("x", "a"), (("keepdims", 0),)): lambda x: x.min(1),
        ("ArgMax", ("x",), (("axis", 1), ("keepdims", 0))): lambda x: x.argmax(1),
        ("ArgMin", ("x",), (("axis", 0), ("keepdims", 0))): lambda x: x.argmin(0),
        ("Softmax", ("x",), (("axis", 1),)): lambda x: torch.tensor(x).softmax(1).numpy(),
        ("LogSoftmax", ("x",), (("axis", 1),)): lambda x: torch.tensor(x).log_softmax(1).numpy(),
    }
    session = compiled(tuple(operators), shape, dtype)
    for seed in range(4):
        x = holes(shape, dtype, seed)
        x[0] = np.abs(x[0])  # a row of its own kind
        with np.errstate(invalid="ignore"):
            wanted = [function(x) for function in operators.values()]
        check(session.run(None, {"x": x, "y": x}), wanted, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("keep", [0, 1])
def test_sums_of_exponentials_of_infinities(dtype: str, keep: int) -> None:
    session = compiled((("ReduceLogSumExp", ("x", "a"), (("keepdims", keep),)),), (8, 3), dtype)
    low, high = -np.inf, np.inf
    rows = [[low, low, low], [low, 1, low], [high, 0, low], [high, high, high], [np.nan, low, high]]
    x = np.array([*rows, [1, 2, 3], [-500, -501, -499], [500, 0, 499]], dtype)
    wanted = torch.tensor(x).logsumexp(1, keepdim=bool(keep)).numpy()
    check(session.run(None, {"x": x, "y": x}), [wanted], dtype)


@pytest.mark.parametrize("shape", [(2, 5, 9, 11), (1, 16, 8, 8), (2, 3, 13), (1, 2, 5, 6, 7)])
def test_nan_passes_through_pooling(shape: tuple[int, ...]) -> None:
    rank = len(shape) - 2
    pool = {1: torch.max_pool1d, 2: torch.max_pool2d, 3: torch.max_pool3d}[rank]
    window = ("kernel_shape", [3] * rank), ("strides", [2] * rank), ("pads", [1] * 2 * rank)
    operators = (("MaxPool", ("x",), window), ("GlobalMaxPool", ("x",), ()))
    frozen = tuple((n, g, tuple((k, tuple(v)) for k, v in options)) for n, g, options in operators)
    session = compiled(frozen, shape, "float32")
    x = holes(shape, "float32", 3)
    tensor = torch.tensor(x)
    spatial = tuple(range(2, len(shape)))
    wanted = [pool(tensor, 3, 2, 1), tensor.amax(spatial, keepdim=True)]
    check(session.run(None, {"x": x, "y": x}), [value.numpy() for value in wanted], "float32")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_divided_by_anything(dtype: str) -> None:
    limits = np.iinfo(dtype)
    some = [limits.min, limits.max, 0, 1, 7] + ([-1, -7] if limits.min else [])
    x, y = (part.ravel() for part in np.meshgrid(np.array(some, dtype), np.array(some, dtype)))
    operators = (
        ("Div", ("x", "y"), ()),
        ("Mod", ("x", "y"), ()),
        ("Mod", ("x", "y"), (("fmod", 1),)),
    )
    quotient, rest, signed = compiled(operators, x.shape, dtype).run(None, {"x": x, "y": y})
    wrapped = [_quotient(int(a), int(b)) % 2**limits.bits for a, b in zip(x, y, strict=True)]
    np.testing.assert_array_equal(quotient, np.array(wrapped, f"uint{limits.bits}").view(dtype))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(rest, np.mod(x, y))
        np.testing.assert_array_equal(signed, np.fmod(x, y))


def _quotient(a: int, b: int) -> int:
    """Cut towards zero; by zero it is zero."""
    whole = abs(a) // abs(b) if b else 0
    return whole if (a < 0) == (b < 0) else -whole


def test_remainders_of_floats_are_exact_to_the_bit() -> None:
    """Beside numpy: whole quotients, those just below, and beyond what float64 holds."""
    rng, count = np.random.default_rng(0), 1000
    y = (rng.random(count) + 0.5).astype(np.float32)
    whole = (rng.integers(1, 2**24, count) * y.astype(np.float64)).astype(np.float32)
    below = np.nextafter(np.float32(3) * y, np.float32(0))
    far = (rng.standard_normal(count) * 2.0 ** rng.integers(-60, 60, count)).astype(np.float32)
    some = [0, -0.0, 1, -1.5, np.inf, -np.inf, np.nan, 1e-45, -3e38, 2.0**28, 2.0**29]
    pairs = [part.ravel() for part in np.meshgrid(*2 * [np.array(some, np.float32)])]
    x, y = (
        np.concatenate([*parts, edge])
        for parts, edge in zip(((whole, below, far), (y, y, -y)), pairs, strict=True)
    )
    operators = (("Mod", ("x", "y"), (("fmod", 1),)),)
    (rest,) = compiled(operators, x.shape, "float32").run(None, {"x": x, "y": y})
    with np.errstate(all="ignore"):
        wanted = np.fmod(x, y)
    np.testing.assert_array_equal(rest, wanted)
    known = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(rest[known]), np.signbit(wanted[known]))


@pytest.mark.parametrize("constant", [True, False])
def test_slopes_that_are_no_numbers_touch_negative_numbers_alone(constant: bool) -> None:
    """The oracle is ONNX Runtime: ONNX's reference multiplies zeros, against ONNX's text."""
    x = np.array([[0, -0.0, 1, -1], [np.inf, np.nan, 2, 0]], np.float32)
    slopes = np.array([np.inf, 0.5, np.nan, -np.inf], np.float32)
    node = helper.make_node("PRelu", ["x", "s"], ["y"])
    given = [helper.make_tensor_value_info(n, 1, a.shape) for n, a in (("x", x), ("s", slopes))]
    held = [numpy_helper.from_array(slopes, "s")] if constant else []
    outputs = [helper.make_tensor_value_info("y", 1, None)]
    graph = helper.make_graph([node], "slopes", given[: 2 - constant], outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = InferenceSession(driver.compile_source(model, Options(threads=1)).artifact, 1)
    feed = {"x": x} if constant else {"x": x, "s": slopes}
    wanted = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    check(session.run(None, feed), wanted, "float32")
