"""Resizing, adaptive pooling and places of extremes, against ONNX Runtime, torch and numpy."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx_models import FLOAT, build
from tvm import relax

from hybridc.compiler import frontend, pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.model import Array

MODES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SIZES = [((5, 7), (10, 14)), ((5, 7), (3, 11)), ((8, 8), (1, 1)), ((3, 1), (7, 4))]


def run(build: Any, *inputs: Array) -> Array:
    """Lower, schedule and run an operator."""
    builder = relax.BlockBuilder()
    variables = [
        relax.Var(f"x{i}", relax.TensorType(x.shape, str(x.dtype))) for i, x in enumerate(inputs)
    ]
    with builder.function("main", variables):
        with builder.dataflow():
            y = builder.emit_output(build(*variables))
        builder.emit_func_output(y)
    return lowered(builder.finalize(), *inputs)


def lowered(module: Any, *inputs: Array) -> Array:
    """Lower, schedule and run a module."""
    context = Context(target.parse("cpu"), pipeline.rules())
    steps = pipeline.parse("legalize,fuse,schedule,start-at-infinity,fast-math")
    (result,) = evaluate(pipeline.run(steps, module, context), list(inputs))
    assert not context.notes
    return result


def image(size: tuple[int, int], channels: int = 5, dtype: str = "float32") -> Array:
    return np.random.default_rng(0).standard_normal((2, *size, channels)).astype(dtype)


def by_onnx_runtime(x: Array, size: tuple[int, int], places: str, **attributes: Any) -> Array:
    """The resized image, channels first."""
    node = helper.make_node(
        "Resize", ["x", "", "", "s"], ["y"], coordinate_transformation_mode=places, **attributes
    )
    sizes = onnx.numpy_helper.from_array(np.array([*x.shape[:2], *size], np.int64), "s")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "resize",
        [value("x", TensorProto.FLOAT, x.shape)],
        [value("y", TensorProto.FLOAT, None)],
        [sizes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_weights_are_those_of_onnx_runtime(
    before: tuple[int, int], after: tuple[int, int], mode: str, method: str
) -> None:
    x = image(before)
    first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    wanted = by_onnx_runtime(first, after, mode, mode=method, cubic_coeff_a=-0.75)
    options: dict[str, Any] = {
        "method": method,
        "coordinate_transformation_mode": mode,
        "cubic_alpha": -0.75,
    }
    size = relax.ShapeExpr(list(after))
    got = run(lambda v: relax.op.image.resize2d(v, size, layout="NHWC", **options), x)
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), wanted, atol=2e-5)
    got = run(lambda v: relax.op.image.resize2d(v, size, layout="NCHW", **options), first)
    np.testing.assert_allclose(got, wanted, atol=2e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_places_far_to_the_right_are_rounded_as_onnx_runtime_does(mode: str, method: str) -> None:
    x = image((4, 480), 1).transpose(0, 3, 1, 2).copy()
    wanted = by_onnx_runtime(x, (9, 224), mode, mode=method, cubic_coeff_a=-0.75)
    size = relax.ShapeExpr([9, 224])
    options: dict[str, Any] = {
        "coordinate_transformation_mode": mode,
        "rounding_method": "round_prefer_floor",
    }
    got = run(
        lambda v: relax.op.image.resize2d(
            v, size, layout="NCHW", method=method, cubic_alpha=-0.75, **options
        ),
        x,
    )
    np.testing.assert_allclose(got, wanted, atol=5e-6)


@pytest.mark.parametrize("rounding", [{}, {"nearest_mode": "ceil"}])
@pytest.mark.parametrize(
    ("rest", "method"),
    [((), "linear"), ((1,), "linear"), ((2,), "linear"), ((2, 2), "linear"), ((2,), "cubic")],
)
def test_models_of_onnx_are_placed_as_onnx_runtime_does(
    rest: tuple[int, ...], rounding: dict[str, str], method: str
) -> None:
    """Whatever they say of the rounding of nearest elements, which says nothing of others."""
    shape, after = (1, 1, *rest, 3001), (1, 1, *rest, 7003)
    resize = helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode=method, **rounding)
    sizes = {"s": np.array(after, np.int64)}
    proto = build([resize], [("x", FLOAT, shape)], [("y", FLOAT, None)], sizes)
    model = frontend.load(proto)
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    (wanted,) = model.reference({"x": x})
    np.testing.assert_allclose(lowered(model.module, x), wanted, atol=5e-6)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(
    ("rest", "method"), [((), "linear"), ((1,), "bilinear"), ((2, 2), "trilinear")]
)
def test_models_of_torch_are_placed_as_torch_does(
    rest: tuple[int, ...], method: str, aligned: bool
) -> None:
    x = torch.randn(1, 1, *rest, 3001, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Upsample((*rest, 7003), mode=method, align_corners=aligned)
    got = lowered(frontend.load(model, example_inputs=(x,)).module, x.numpy())
    np.testing.assert_allclose(got, model(x).numpy(), atol=5e-5)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_places_far_to_the_right_are_rounded_as_torch_does(aligned: bool, method: str) -> None:
    x = torch.randn(1, 1, 4, 480, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Upsample((9, 224), mode=method, align_corners=aligned)
    got = lowered(frontend.load(model, example_inputs=(x,)).module, x.numpy())
    np.testing.assert_allclose(got, model(x).numpy(), atol=5e-6)


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_nearest_places_are_those_of_onnx_runtime(
    before: tuple[int, int], after: tuple[int, int], mode: str, rounding: str
) -> None:
    x = image(before)
    first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    wanted = by_onnx_runtime(first, after, mode, mode="nearest", nearest_mode=rounding)
    size = relax.ShapeExpr(list(after))
    got = run(
        lambda v: relax.op.image.resize2d(
            v,
            size,
            layout="NHWC",
            method="nearest_neighbor",
            coordinate_transformation_mode=mode,
            rounding_method=rounding,
        ),
        x,
    )
    np.testing.assert_array_equal(got.transpose(0, 3, 1, 2), wanted)


@pytest.mark.parametrize(
    ("before", "after"),
    [((9, 21), (18, 42)), ((24, 40), (12, 20)), ((10, 100), (21, 30)), ((6, 64), (7, 256))],
)
@pytest.mark.parametrize("method", ["linear", "cubic", "nearest_neighbor"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_rows_are_the_same_in_either_layout(
    before: tuple[int, int], after: tuple[int, int], method: str, dtype: str
) -> None:
    x = np.abs(30 * image(before, 3)).astype(dtype)
    size = relax.ShapeExpr(list(after))
    options: dict[str, Any] = {"method": method, "coordinate_transformation_mode": "half_pixel"}
    last = run(lambda v: relax.op.image.resize2d(v, size, layout="NHWC", **options), x)
    first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    got = run(lambda v: relax.op.image.resize2d(v, size, layout="NCHW", **options), first)
    # A sum in another order may be rounded to the integer on the other side.
    atol = 1e-4 if dtype == "float32" else 1
    np.testing.assert_allclose(
        got.astype("float64"), last.transpose(0, 3, 1, 2).astype("float64"), atol=atol
    )


def test_nearest_of_integers_is_exact() -> None:
    x = np.arange(2**24, 2**24 + 12, dtype=np.int32).reshape(1, 3, 4, 1)
    size = relax.ShapeExpr([6, 8])
    got = run(
        lambda v: relax.op.image.resize2d(
            v,
            size,
            layout="NHWC",
            method="nearest_neighbor",
            coordinate_transformation_mode="asymmetric",
            rounding_method="floor",
        ),
        x,
    )
    np.testing.assert_array_equal(got, x.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(
    ("before", "after"), [((7, 7), (1, 1)), ((32, 20), (7, 7)), ((5, 3), (7, 2)), ((40, 8), (3, 8))]
)
def test_adaptive_average_pool(
    before: tuple[int, int], after: tuple[int, int], layout: str
) -> None:
    x = image(before, 19)
    first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    wanted = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(first), after).numpy()
    given = x if layout == "NHWC" else first
    got = run(lambda v: relax.op.nn.adaptive_avg_pool2d(v, after, layout=layout), given)
    got = got.transpose(0, 3, 1, 2) if layout == "NHWC" else got
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "int8", "int64"])
@pytest.mark.parametrize("shape", [(9, 21), (4, 7, 33), (3, 5, 1)])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_the_first_place_of_an_extreme(
    dtype: str, shape: tuple[int, ...], axis: int, name: str
) -> None:
    # Few different values, so that the extreme stands at several places.
    x = np.random.default_rng(0).integers(-3, 4, shape).astype(dtype)
    got = run(lambda v: getattr(relax.op, name)(v, axis), x)
    np.testing.assert_array_equal(got, getattr(np, name)(x, axis))


def test_the_place_of_an_infinity_and_places_within_rows_of_nan() -> None:
    x = np.full((3, 20), -np.inf, np.float32)
    x[1, 7] = np.inf
    x[2] = np.nan
    got = run(lambda v: relax.op.argmax(v, 1, keepdims=True), x)
    assert got.shape == (3, 1)
    np.testing.assert_array_equal(got[:2, 0], [0, 7])
    assert 0 <= got[2, 0] < 20
