"""Steps of optimisers against ONNX's reference, gradients against torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_models import FLOAT, INT64, build, node, noise

import hybridc
from hybridc.compiler.errors import ModelError

DOMAIN = "ai.onnx.preview.training"


def domains(opset: int) -> Any:
    return [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]


def run(model: Any, feed: Any) -> list[Any]:
    artifact = hybridc.compile(model, verify="off")
    assert not artifact.regions
    return hybridc.InferenceSession(artifact).run(None, feed)


STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "Adagrad": ("h", {"decay_factor": 0.1, "norm_coefficient": 0.01}),
    "Adam": ("v h", {"alpha": 0.8, "beta": 0.95, "norm_coefficient_post": 0.01}),
    "Momentum": (
        "v",
        {"alpha": 0.9, "beta": 0.8, "mode": "standard", "norm_coefficient": 0.01},
    ),
    "Nesterov": (
        "v",
        {"alpha": 0.9, "beta": 0.8, "mode": "nesterov", "norm_coefficient": 0.01},
    ),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("turn", [0, 3])
@pytest.mark.parametrize("opset", [12, 21])
def test_steps_of_optimisers(name: str, turn: int, opset: int) -> None:
    """Two tensors of different sizes, at the first turn and later."""
    states, options = STEPS[name]
    operator = "Momentum" if name == "Nesterov" else name
    names = [f"{part}{i}" for part in ("x g " + states).split() for i in (1, 2)]
    outputs = [f"new_{part}{i}" for part in ("x " + states).split() for i in (1, 2)]
    step = helper.make_node(operator, ["r", "t", *names], outputs, domain=DOMAIN, **options)
    shapes = {"1": [3], "2": [2, 4]}
    feed: dict[str, Any] = {n: noise(*shapes[n[-1]]) for n in names}
    feed |= {n: np.abs(a) for n, a in feed.items() if n.startswith("h")}
    feed |= {"r": np.float32(0.1), "t": np.array(turn, np.int64)}
    given = [("r", FLOAT, []), ("t", INT64, [])]
    given += [(n, FLOAT, shapes[n[-1]]) for n in names]
    model = build([step], given, [(n, FLOAT, None) for n in outputs], opset_imports=domains(opset))
    got = run(model, feed)
    wanted: Any = ReferenceEvaluator(model).run(None, feed)
    for value, right in zip(got, wanted, strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-6)


def gradients(nodes: Any, inputs: dict[str, Any], **constants: Any) -> Any:
    """A model of a function's `y` and its derivatives by floats among the inputs."""
    names = list(inputs)
    outputs = [f"d_{name}" for name in names]
    step = helper.make_node("Gradient", names, outputs, domain=DOMAIN, y="y", xs=names)
    given = [(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in inputs.items()]
    made = [("y", FLOAT, None), *((name, FLOAT, None) for name in outputs)]
    return build([*nodes, step], given, made, constants, opset_imports=domains(18))


Case = tuple[list[Any], dict[str, Any], Callable[..., Any]]


def elementwise() -> dict[str, Case]:
    import torch
    from torch.nn import functional as F  # noqa: N812

    a, row, positive = noise(3, 4), noise(1, 4), np.abs(noise(3, 4)) + 0.5
    unary: dict[str, Any] = {
        "Cos": torch.cos, "Erf": torch.erf, "Exp": torch.exp, "Neg": torch.neg,
        "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Sin": torch.sin,
        "Softplus": F.softplus, "Tanh": torch.tanh, "Abs": torch.abs,
        "Log": torch.log, "Sqrt": torch.sqrt, "Reciprocal": torch.reciprocal,
    }  # fmt: skip
    found: dict[str, Case] = {
        name: ([node(name, "a", "y")], {"a": positive if name in ("Log", "Sqrt") else a}, f)
        for name, f in unary.items()
    }
    binary = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div}
    for name, f in binary.items():
        found[f"{name} broadcast"] = ([node(name, "a b", "y")], {"a": a, "b": row}, f)
        found[f"{name} of a scalar"] = (
            [node(name, "a b", "y")], {"a": a, "b": np.float32(1.5)}, f,
        )  # fmt: skip
    found |= {
        "Pow": ([node("Pow", "a b", "y")], {"a": positive, "b": row}, torch.pow),
        "the same twice": ([node("Mul", "a a", "y")], {"a": a}, lambda x: x * x),
        "Sum": ([node("Sum", "a b a", "y")], {"a": a, "b": row}, lambda x, z: x + z + x),
    }
    return found


def products() -> dict[str, Case]:
    import torch

    a, b = noise(3, 4), noise(4, 5)
    return {
        "MatMul": ([node("MatMul", "a b", "y")], {"a": a, "b": b}, torch.matmul),
        "MatMul of stacks": (
            [node("MatMul", "a b", "y")], {"a": noise(2, 1, 3, 4), "b": noise(5, 4, 2)},
            torch.matmul,
        ),
        "MatMul of vectors": (
            [node("MatMul", "a b", "y")], {"a": noise(4), "b": noise(4)}, torch.matmul,
        ),
        "MatMul by a vector": (
            [node("MatMul", "a b", "y")], {"a": noise(2, 3, 4), "b": noise(4)}, torch.matmul,
        ),
        "Gemm of transposes": (
            [node("Gemm", "a b", "y", transA=1)], {"a": noise(4, 3), "b": b},
            lambda x, w: x.T @ w,
        ),
        "Gemm of both transposed": (
            [node("Gemm", "a b", "y", transA=1, transB=1)], {"a": noise(4, 3), "b": noise(5, 4)},
            lambda x, w: x.T @ w.T,
        ),
    }  # fmt: skip


def others() -> dict[str, Case]:
    import torch
    from torch.nn import functional as F  # noqa: N812

    a, row = noise(3, 4), noise(1, 4)
    return {
        "softmax": (
            [node("Softmax", "a", "y", axis=0)], {"a": a}, lambda x: torch.softmax(x, 0),
        ),
        "log softmax": (
            [node("LogSoftmax", "a", "y", axis=-1)], {"a": a}, lambda x: F.log_softmax(x, -1),
        ),
        "mean": (
            [node("ReduceMean", "a", "y", keepdims=0)], {"a": a}, torch.mean,
        ),
        "concatenated": (
            [node("Concat", "a b", "c", axis=0), node("Exp", "c", "y")], {"a": a, "b": row},
            lambda x, z: torch.exp(torch.cat([x, z])),
        ),
        "moved": (
            [node("Transpose", "a", "t"), node("Flatten", "t", "f", axis=0), node("Sin", "f", "y")],
            {"a": a}, lambda x: torch.sin(x.T.reshape(1, -1)),
        ),
        "a layer": (
            [
                node("Gemm", "a b c", "h", transB=1, alpha=0.5, beta=2.0),
                node("Relu", "h", "r"),
                node("ReduceMean", "r", "y", keepdims=1),
            ],
            {"a": a, "b": noise(5, 4), "c": noise(5)},
            lambda x, w, c: torch.relu(0.5 * x @ w.T + 2 * c).mean().reshape(1, 1),
        ),
    }  # fmt: skip


CASES = elementwise() | products() | others()


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    import torch

    nodes, inputs, function = CASES[name]
    y, *got = run(gradients(nodes, inputs), inputs)
    tensors = [torch.tensor(array, requires_grad=True) for array in inputs.values()]
    right = function(*tensors)
    np.testing.assert_allclose(y, right.detach().numpy(), rtol=1e-4, atol=1e-5)
    right.sum().backward()
    for value, tensor in zip(got, tensors, strict=True):
        assert tensor.grad is not None
        np.testing.assert_allclose(value, tensor.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_a_gradient_of_a_gradient() -> None:
    """y = x^3 at 2: 12 and 12."""
    first = helper.make_node("Gradient", ["x"], ["d"], domain=DOMAIN, xs=["x"], y="y")
    second = helper.make_node("Gradient", ["x"], ["dd"], domain=DOMAIN, xs=["x"], y="d")
    nodes = [node("Mul", "x x", "s"), node("Mul", "s x", "y"), first, second]
    made = [("d", FLOAT, None), ("dd", FLOAT, None)]
    model = build(nodes, [("x", FLOAT, [])], made, opset_imports=domains(18))
    d, dd = run(model, {"x": np.float32(2)})
    assert (float(d), float(dd)) == (12.0, 12.0)


def test_at_another_place_than_in_the_graph() -> None:
    nodes = [
        node("Mul", "a a", "s"),
        node("Mul", "s z", "y"),
        helper.make_node("Gradient", ["b", "z"], ["d"], domain=DOMAIN, xs=["a"], zs=["z"], y="y"),
    ]
    given = [("a", FLOAT, [2]), ("b", FLOAT, [2]), ("z", FLOAT, [])]
    model = build(nodes, given, [("y", FLOAT, None), ("d", FLOAT, None)], opset_imports=domains(18))
    a, b, z = (np.array(x, np.float32) for x in ([1, 2], [3, 4], 5))
    y, d = run(model, {"a": a, "b": b, "z": z})
    np.testing.assert_allclose(y, a * a * z)
    np.testing.assert_allclose(d, 2 * b * z)


def test_what_does_not_matter_has_the_gradient_zero() -> None:
    model = gradients([node("Neg", "a", "y")], {"a": noise(2), "b": noise(3)})
    _, da, db = run(model, {"a": noise(2), "b": noise(3)})
    np.testing.assert_array_equal(da, [-1, -1])
    np.testing.assert_array_equal(db, np.zeros(3))


def test_no_rule_is_an_error_of_one_line() -> None:
    model = gradients([node("Celu", "a", "y")], {"a": noise(2)})
    with pytest.raises(ModelError, match=r"a gradient through 'Celu' is not supported; known: Abs"):
        hybridc.compile(model)


def test_kinds_of_numbers_are_kept() -> None:
    x = noise(3).astype(np.float64)
    model = gradients([node("Mul", "a a", "y")], {"a": x})
    for value in model.graph.output:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    _, d = run(model, {"a": x})
    assert d.dtype == np.float64
    np.testing.assert_allclose(d, 2 * x)
