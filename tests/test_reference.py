"""The reference computes what ONNX says, also where ONNX Runtime by itself does not."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_models import FLOAT, build, node, noise

import hybridc
from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError
from hybridc.compiler.frontends.onnx_reference import OnnxReference
from hybridc.compiler.runtime.session import InferenceSession

DRAW = np.random.default_rng(3)


def quantized(operator: str, *shape: int) -> Any:
    """A product of uint8 by int8 whose sums of two products overflow 16 bits."""
    constants = {
        **{"xs": np.float32(0.02), "xz": np.uint8(120), "ws": np.float32(0.01)},
        **{"wz": np.int8(0), "ys": np.float32(1.0), "yz": np.uint8(128)},
        "w": DRAW.integers(-127, 128, shape).astype("int8"),
    }
    product = node(operator, "x xs xz w ws wz ys yz", "y")
    image = (1, shape[1], 9, 9) if operator == "QLinearConv" else (7, shape[0])
    inputs = [("x", TensorProto.UINT8, image)]
    return build([product], inputs, [("y", TensorProto.UINT8, None)], constants)


@pytest.mark.parametrize(
    ("operator", "shape"), [("QLinearConv", (32, 16, 3, 3)), ("QLinearMatMul", (64, 32))]
)
def test_sums_of_quantised_products_do_not_overflow(operator: str, shape: tuple[int, ...]) -> None:
    proto = quantized(operator, *shape)
    size = [each.dim_value for each in proto.graph.input[0].type.tensor_type.shape.dim]
    feed = {"x": DRAW.integers(0, 256, size).astype("uint8")}
    got = OnnxReference(proto)(feed)[0].astype(int)
    answer: Any = ReferenceEvaluator(proto).run(None, feed)
    wanted = np.asarray(answer[0]).astype(int)
    assert np.abs(got - wanted).max() <= 1  # a tie


def test_scattered_rows_that_fall_together_are_all_added_up() -> None:
    """On several threads ONNX Runtime loses some, others each time."""
    shapes = {"data": [10, 64], "places": [5000, 1], "rows": [5000, 64]}
    types = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT)
    inputs = [
        helper.make_tensor_value_info(name, kind, size)
        for (name, size), kind in zip(shapes.items(), types, strict=True)
    ]
    scatter = helper.make_node("ScatterND", list(shapes), ["y"], reduction="add")
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes["data"])
    graph = helper.make_graph([scatter], "scatter", inputs, [result])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    places = np.random.default_rng(0).integers(0, 2, (5000, 1))
    feed: dict[str, Any] = {
        "data": np.zeros((10, 64), np.float32),
        "places": places,
        "rows": np.ones((5000, 64), np.float32),
    }
    reference = OnnxReference(proto)
    for _ in range(5):
        (y,) = reference(feed)
        np.testing.assert_array_equal(y[:2, 0], np.bincount(places[:, 0]))


@pytest.mark.parametrize("length", [300, 5000])
def test_transforms_of_any_length_are_exact(length: int) -> None:
    """ONNX Runtime by itself is 2e-3 off; the longer one is what it computes in an artifact."""
    x = noise(2, length, 1)
    proto = build([node("DFT", "x", "y")], [("x", FLOAT, x.shape)], [("y", FLOAT, None)])
    spectrum = np.fft.fft(x[..., 0].astype(np.float64))
    wanted = np.stack([spectrum.real, spectrum.imag], -1)
    session = InferenceSession(driver.compile_source(proto, Options(threads=1)).artifact, 1)
    for (y,) in (OnnxReference(proto)({"x": x}), session.run(None, {"x": x})):
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, wanted, 1e-6, 1e-5)


def test_transforms_of_windows_are_exact() -> None:
    x, window = noise(1, 1600), np.hanning(400).astype(np.float32)
    nodes = [node("STFT", "x step window", "y")]
    made = [("y", FLOAT, None)]
    proto = build(nodes, [("x", FLOAT, x.shape)], made, {"step": np.int64(160), "window": window})
    (y,) = OnnxReference(proto)({"x": x})
    frames = np.lib.stride_tricks.sliding_window_view(x[0], 400)[::160]
    spectra = np.fft.rfft(frames * window.astype(np.float64))
    np.testing.assert_allclose(y[0, ..., 0] + 1j * y[0, ..., 1], spectra, 1e-6, 1e-5)


def test_sizes_that_a_model_does_not_run_with_are_told() -> None:
    nodes = [node("Flatten", "x", "f"), node("MatMul", "f w", "y")]
    image: list[Any] = [1, "h", 2]
    given, made = ("x", TensorProto.FLOAT, image), ("y", TensorProto.FLOAT, None)
    proto = build(nodes, [given], [made], {"w": np.ones((8, 3), np.float32)})
    run = OnnxReference(proto)
    assert run({"x": np.ones((1, 4, 2), np.float32)})[0].tolist() == [[8.0, 8.0, 8.0]]
    with pytest.raises(
        InputError, match=r"does not run on the inputs used for comparison: .*--shape"
    ):
        run({"x": np.ones((1, 5, 2), np.float32)})


@pytest.mark.parametrize("coordinates", ["align_corners", "tf_crop_and_resize"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_corners_are_aligned_by_sizes_before_they_are_rounded(mode: str, coordinates: str) -> None:
    """As in ONNX's own cases; ONNX Runtime takes the rounded ones."""
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    resize = node("Resize", "x roi scales", "y", **options)
    roi = np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9], np.float32)
    for ratios in ((0.7, 1.5), (0.25, 3), (2, 0.3), (0.5, 0.5)):
        constants = {"roi": roi, "scales": np.array([1, 1, *ratios], np.float32)}
        sizes: list[Any] = [1, "c", 5, 7]
        image, made = ("x", TensorProto.FLOAT, sizes), ("y", TensorProto.FLOAT, None)
        proto = build([resize], [image], [made], constants, opset=18)
        feed = {"x": DRAW.standard_normal((1, 2, 5, 7)).astype("float32")}
        wanted: Any = ReferenceEvaluator(proto).run(None, feed)
        (got,) = OnnxReference(proto)(feed)
        np.testing.assert_allclose(got, wanted[0], 1e-4, 1e-4)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_types_that_arrays_of_onnx_runtime_lack(name: str) -> None:
    """They come in, go out, and are told from the bytes in which they come."""
    narrow = helper.np_dtype_to_tensor_dtype(np.dtype(name))
    nodes = [node("Cast", "x", "y", to=narrow), node("Cast", "h", "z", to=TensorProto.FLOAT)]
    sizes: list[Any] = [[2, 3], []]
    inputs = [("x", TensorProto.FLOAT, sizes[0]), ("h", narrow, sizes[1])]
    outputs = [("y", narrow, sizes[0]), ("z", TensorProto.FLOAT, sizes[1])]
    x, h = DRAW.standard_normal((2, 3)).astype(np.float32), np.array(-1.5, np.dtype(name))
    y, z = OnnxReference(build(nodes, inputs, outputs))({"x": x, "h": h})
    assert (str(y.dtype), str(z.dtype), z.shape) == (name, "float32", ())
    np.testing.assert_array_equal(y, x.astype(np.dtype(name)))
    assert z == -1.5


@pytest.mark.parametrize("kind", [TensorProto.INT2, TensorProto.UINT2])
def test_products_with_weights_of_two_bits(kind: int) -> None:
    """ONNX Runtime takes them for others where it optimises."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights, x = DRAW.integers(0, 2, (32, 6)).astype(dtype), DRAW.standard_normal((3, 32))
    nodes = [node("DequantizeLinear", "w s", "d", axis=1), node("MatMul", "x d", "y")]
    scale = DRAW.random(6).astype(np.float32)
    inputs = [("x", TensorProto.FLOAT, [3, 32])]
    outputs: list[Any] = [("y", TensorProto.FLOAT, [3, 6])]
    model = build(nodes, inputs, outputs, {"w": weights, "s": scale}, opset=25, ir_version=12)
    (y,) = OnnxReference(model)({"x": x.astype(np.float32)})
    np.testing.assert_allclose(y, x @ (weights.astype(np.float32) * scale), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("domain", ["", "com.example"])
@pytest.mark.parametrize("rows", ["n", 2])
def test_operators_that_no_output_needs_may_be_unknown(rows: int | str, domain: str) -> None:
    dead = [node("Unheard", "x", "q", domain=domain), node("Relu", "q", "r")]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    inputs, outputs = [("x", FLOAT, [rows, 3])], [("y", FLOAT, None)]
    model = build([*dead, node("Abs", "x", "y")], inputs, outputs, opset_imports=opsets)
    session = hybridc.InferenceSession(hybridc.compile(model, threads=1))
    np.testing.assert_array_equal(session.run(None, {"x": -noise(2, 3)})[0], abs(noise(2, 3)))


def test_a_model_that_refuses_its_inputs_is_told_without_places_in_a_foreign_source() -> None:
    constants = {"shape": np.array([1, 6], np.int64)}
    nodes, made = [node("Reshape", "x shape", "y")], [("y", FLOAT, None)]
    proto = build(nodes, [("x", FLOAT, ("n", 6))], made, constants)
    with pytest.raises(InputError) as caught:
        OnnxReference(proto)({"x": np.zeros((2, 6), np.float32)})
    said = str(caught.value)
    assert "The input tensor cannot be reshaped to the requested shape" in said
    assert "requested shape:{1,6};" in said
    assert "onnxruntime_src" not in said


def test_an_output_that_is_left_out_keeps_no_node_alive() -> None:
    """Nor does an input that is left out need it, though neither has a name."""
    dead = helper.make_node("Unheard", ["x"], ["q", ""], domain="com.example")
    clip = helper.make_node("Clip", ["x", "", "most"], ["y"])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    inputs, outputs, most = [("x", FLOAT, [2, 3])], [("y", FLOAT, None)], np.float32(0.5)
    model = build([dead, clip], inputs, outputs, {"most": most}, opset_imports=opsets)
    session = hybridc.InferenceSession(hybridc.compile(model, threads=1))
    np.testing.assert_array_equal(
        session.run(None, {"x": noise(2, 3)})[0], noise(2, 3).clip(max=most)
    )


def test_a_reference_that_was_released_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of large models are given back while the model is compiled."""
    monkeypatch.setattr("hybridc.compiler.frontends.onnx_reference._BULK", 3)
    inputs, made = [("x", FLOAT, (3,))], [("y", FLOAT, None)]
    proto = build([node("Add", "x w", "y")], inputs, made, {"w": np.ones(3, np.float32)})
    run = OnnxReference(proto)
    for _ in range(2):
        assert run({"x": np.ones(3, np.float32)})[0].tolist() == [2, 2, 2]
        run.release()
        assert run._session is None  # pyright: ignore[reportPrivateUsage]
