"""Resizing to the nearest element, where places lie half between two, or just beside that."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import hybridc
from hybridc.compiler import frontend


def resized(
    given: int, made: int, coordinates: str, rounding: str, kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """An image of `given` squared as one of `made` squared."""
    node = helper.make_node(
        "Resize",
        ["x", "", "", "sizes"],
        ["y"],
        mode="nearest",
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding,
    )
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, 1, made, made])
    shapes = {"x": [1, 1, given, given], "y": [1, 1, made, made]}
    x, y = (helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items())
    graph = helper.make_graph([node], "resized", [x], [y], [sizes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(("given", "made"), [(30, 64), (64, 30), (7, 10)])
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", ["asymmetric", "half_pixel"])
def test_the_same_elements_as_onnx_runtime(
    given: int, made: int, coordinates: str, rounding: str
) -> None:
    if (coordinates, rounding, made) == ("asymmetric", "round_prefer_ceil", 64):
        pytest.skip("ONNX Runtime rounds 7.5 up and 22.5 down")
    model = resized(given, made, coordinates, rounding)
    x = np.arange(given**2, dtype=np.float32).reshape(1, 1, given, given)
    session = hybridc.InferenceSession(hybridc.compile(model, verify="off", threads=1), 1)
    (got,) = session.run(None, {"x": x})
    (wanted,) = frontend.load(model).reference({"x": x})
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("target", ["cpu", "avx2"])
@pytest.mark.parametrize(("given", "made"), [(30, 60), (61, 30), (7, 10)])
@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.float16])
def test_narrow_elements_are_those_that_numpy_takes(
    given: int, made: int, kind: type[np.uint8 | np.int8 | np.float16], target: str
) -> None:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    model = resized(given, made, "asymmetric", "floor", element)
    x = np.arange(given**2).astype(np.uint8).astype(kind).reshape(1, 1, given, given)
    artifact = hybridc.compile(model, verify="off", threads=1, target=target)
    (got,) = hybridc.InferenceSession(artifact, 1).run(None, {"x": x})
    places = np.arange(made) * given // made
    np.testing.assert_array_equal(got, x[:, :, places][..., places])


@pytest.mark.parametrize("target", ["cpu", "avx2"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize(("given", "made"), [(30, 60), (61, 30), (7, 10), (60, 7)])
def test_half_precision_is_rounded_once(given: int, made: int, mode: str, target: str) -> None:
    """The sums are of float32, as are those of the same image of float32."""
    wide = resized(given, made, "half_pixel", "floor")
    narrow = resized(given, made, "half_pixel", "floor", TensorProto.FLOAT16)
    for model in (wide, narrow):
        next(a for a in model.graph.node[0].attribute if a.name == "mode").s = mode.encode()
    x = np.random.default_rng(0).standard_normal((1, 1, given, given)).astype(np.float16)
    artifact = hybridc.compile(narrow, verify="off", threads=1, target=target)
    (got,) = hybridc.InferenceSession(artifact, 1).run(None, {"x": x})
    (wanted,) = frontend.load(wide).reference({"x": x.astype(np.float32)})
    assert got.dtype == np.float16
    np.testing.assert_allclose(got.astype(np.float32), wanted, rtol=6e-4, atol=1e-4)


@pytest.mark.parametrize("scales", [(0.6, 0.7), (1.3, 0.9), (0.5, 2.5)])
def test_the_first_resize_rounds_up_where_it_shrinks(scales: tuple[float, float]) -> None:
    node = helper.make_node("Resize", ["x", "scales"], ["y"], mode="nearest")
    held = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, *scales])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 5, 7])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "resized", [x], [y], [held])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=9)
    feed = {"x": np.arange(70, dtype=np.float32).reshape(1, 2, 5, 7)}
    session = hybridc.InferenceSession(hybridc.compile(model, verify="off", threads=1), 1)
    (wanted,) = frontend.load(model).reference(feed)
    np.testing.assert_array_equal(session.run(None, feed)[0], wanted)
