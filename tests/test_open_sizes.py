"""Models whose sizes stay open, against ONNX Runtime over a range of sizes."""

from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import open_models
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx_models import FLOAT, build, node, noise

from hybridc.compiler import driver, frontend
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError, ModelError
from hybridc.compiler.model import random_feed
from hybridc.compiler.runtime.session import InferenceSession

MODELS = {
    "digits": open_models.digits,
    "residual": open_models.residual,
    "transformer": open_models.transformer,
    "sentences": lambda: open_models.transformer(length=16),
    "joined": open_models.joined,
    "decoder": open_models.decoder,
    "image": open_models.image,
    "winograd": lambda: open_models.residual(channels=64, side=20),
}
# Register tiles have 4 or 6 rows, strips 16 and 64.
SIZES = (1, 2, 3, 4, 5, 7, 15, 16, 17, 31, 64, 65, 67)


@cache
def pair(name: str) -> tuple[InferenceSession, Any, Any]:
    """A session of ours, one of ONNX Runtime, and how the model was compiled."""
    proto = MODELS[name]()
    outcome = driver.compile_source(proto, Options(threads=2))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    reference = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return InferenceSession(outcome.artifact), reference, outcome


def check(name: str, sizes: dict[str, int]) -> None:
    ours, reference, _ = pair(name)
    feed = random_feed(ours.artifact.inputs, 3, sizes)
    for got, wanted in zip(ours.run(None, feed), reference.run(None, feed), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, 1e-3, 1e-4)


@pytest.mark.parametrize("batch", SIZES)
def test_digits(batch: int) -> None:
    check("digits", {"batch": batch})


@pytest.mark.slow
@pytest.mark.parametrize("batch", SIZES)
@pytest.mark.parametrize("name", ["residual", "winograd", "sentences"])
def test_an_open_number_of_images_or_sequences(name: str, batch: int) -> None:
    check(name, {"batch": batch})


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 9), length=st.integers(1, 48))
@example(batch=1, length=1)
@example(batch=1, length=48)
@example(batch=3, length=17)
def test_a_transformer_of_any_batch_and_length(batch: int, length: int) -> None:
    check("transformer", {"batch": batch, "length": length})


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 9), length=st.integers(1, 100))
def test_joins_reshapes_and_arithmetic_on_sizes(batch: int, length: int) -> None:
    check("joined", {"batch": batch, "length": length})


@pytest.mark.parametrize("name", ["digits", "transformer"])
def test_no_kernel_is_left_without_a_rule(name: str) -> None:
    kernels = pair(name)[2].report.kernels
    assert "fallback" not in {kernel.rule for kernel in kernels}
    rules = {
        "digits": {"conv2d", "dense", "pooling"},
        "transformer": {"dense", "matmul", "layer-norm"},
    }
    assert rules[name] <= {kernel.rule for kernel in kernels}
    assert all(kernel.workload for kernel in kernels)


@pytest.mark.slow
def test_open_batches_keep_winograd_and_attention() -> None:
    rules = {k.rule for name in ("winograd", "sentences") for k in pair(name)[2].report.kernels}
    assert {"winograd-conv2d", "attention", "depthwise-conv2d"} <= rules


def test_sizes_out_of_bounds_are_one_error() -> None:
    session = pair("transformer")[0]
    ids = np.ones((2, 49), np.int64)
    with pytest.raises(
        InputError, match=r"wanted: ids int64\[batch,length:1..48\], given: ids int64\[2,49\]"
    ):
        session.run(None, {"ids": ids, "mask": ids})
    with pytest.raises(InputError, match="differ in 'length', which they share: 5 and 6"):
        session.run(None, {"ids": ids[:, :5], "mask": ids[:, :6]})
    with pytest.raises(InputError, match="given: ids"):
        session.run(None, {"ids": ids[0], "mask": ids})
    with pytest.raises(InputError, match="given: ids"):
        session.run(None, {"ids": ids[:0, :3], "mask": ids[:0, :3]})


def test_a_session_tells_its_open_sizes_and_takes_tensors() -> None:
    session = pair("digits")[0]
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]
    assert session.get_outputs()[0].shape == ["batch", 10]
    for count in (5, 2, 7):
        assert session(np.zeros((count, 1, 8, 8), np.float32)).shape == (count, 10)
    strided = np.zeros((6, 1, 8, 16), np.float32)[..., ::2]
    assert session.run(None, {"image": strided})[0].shape == (6, 10)


def test_the_certificate_tells_the_sizes() -> None:
    sizes = pair("transformer")[2].artifact.certificate["sizes"]
    assert sizes["measured_at"] == {"batch": 8, "length": 48}
    tried = [tuple(each.values()) for each in sizes["compared_at"]]
    assert {(1, 1), (8, 48)} <= set(tried)
    assert any(1 < length < 48 for _, length in tried)


@pytest.mark.slow
def test_bounds_and_the_size_to_measure_at() -> None:
    proto = open_models.digits()
    outcome = driver.compile_source(proto, Options(threads=2), {"batch": "1..6@3"})
    sizes = outcome.artifact.certificate["sizes"]
    assert sizes["measured_at"] == {"batch": 3}
    assert {"batch": 6} in sizes["compared_at"]
    session = InferenceSession(outcome.artifact)
    with pytest.raises(InputError, match=r"image float32\[batch:1..6,1,8,8\]"):
        session(np.zeros((7, 1, 8, 8), np.float32))
    storages = outcome.artifact.report["memory"]["activations"]
    assert 0 < storages < 10**6  # planned for the upper bound


def test_an_axis_may_be_fixed_by_its_name() -> None:
    model = frontend.load(open_models.transformer(), shapes={"length": 7, "batch": "2..4"})
    assert model.inputs[0].describe() == "ids int64[batch:2..4,7]"
    fixed = frontend.load(open_models.transformer(), shapes={"length": 7, "batch": 2})
    assert fixed.inputs[1].shape == (2, 7)


def test_a_table_of_positions_bounds_the_length() -> None:
    model = frontend.load(open_models.transformer())
    assert "length is at most 48: a Slice takes so many of 48 elements" in model.notes
    with pytest.raises(ModelError, match="from which the shape"):
        frontend.load(open_models.transformer(), shapes={"length": "1..100"})


def test_windows_bound_the_image_from_below() -> None:
    nodes = [
        node("Conv", "x k", "c", strides=[2, 2]),
        node("MaxPool", "c", "p", kernel_shape=[3, 2]),
        node("AveragePool", "p", "y", kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
    ]
    proto = build(
        nodes, [("x", FLOAT, [1, 2, "h", "w"])], [("y", FLOAT, None)], {"k": noise(3, 2, 5, 5)}
    )
    model = driver.compile_source(proto, Options(threads=1)).artifact
    assert model.inputs[0].describe() == "x float32[1,2,h:9..,w:7..]"
    assert model.certificate["sizes"]["compared_at"][1] == {"h": 9, "w": 7}
    told = frontend.load(proto).notes
    assert "h is at least 9: a window of MaxPool has to fit in" in told
    wide = frontend.load(proto, shapes={"h": "20..30"}).inputs[0]
    assert wide.describe() == "x float32[1,2,h:20..30,w:7..]"


@pytest.mark.parametrize(
    ("operator", "shape", "dtype"), [("Det", ("n", "n"), "float32"), ("NonZero", ("n", 4), "int64")]
)
def test_what_cannot_stay_open_is_one_line_that_names_it(
    operator: str, shape: tuple[Any, ...], dtype: str
) -> None:
    b = open_models.Builder()
    y = b.op(operator, "x")
    model = b.model({"x": (shape, "float32")}, {y: dtype})
    with pytest.raises(ModelError, match=rf"operator {operator!r}.*open.*--shape") as caught:
        frontend.load(model, fallback=True)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int8-weights", "int4-weights"])
def test_weights_of_few_bits_and_open_rows(dtype: str) -> None:
    """Compared with the reference at several sizes as it is compiled."""
    outcome = driver.compile_source(open_models.transformer(), Options(dtype=dtype, threads=2))
    assert "weight-only-dense" in {kernel.rule for kernel in outcome.report.kernels}
    assert len(outcome.artifact.certificate["sizes"]["compared_at"]) > 2


@pytest.mark.parametrize("dtype", ["int8-weights", "int4-weights"])
def test_weights_of_few_bits_and_open_images(dtype: str) -> None:
    b = open_models.Builder()
    y = b.op("Conv", "x", b.noise(16, 3, 3, 3), strides=[2, 1], pads=[1] * 4)
    y = b.op("Conv", b.op("Relu", y), b.noise(8, 8, 3, 3), pads=[1] * 4, group=2)
    model = b.model({"x": ((1, 3, "high", "wide"), "float32")}, {y: "float32"})
    outcome = driver.compile_source(model, Options(dtype=dtype, threads=2))
    assert any("weights of 2 nn.conv2d in int" in note for note in outcome.report.notes)
    assert len(outcome.artifact.certificate["sizes"]["compared_at"]) > 2


@pytest.mark.slow
@pytest.mark.parametrize("past", [0, 1, 2, 17, 48])
@pytest.mark.parametrize(("batch", "new"), [(1, 1), (2, 5), (1, 16)])
def test_a_decoder_with_any_past(batch: int, new: int, past: int) -> None:
    check("decoder", {"batch": batch, "new": new, "past": past})


@pytest.mark.slow
@pytest.mark.parametrize(("high", "wide"), [(2, 2), (3, 4), (16, 16), (17, 31), (40, 8)])
def test_images_of_any_size(high: int, wide: int) -> None:
    for batch in (1, 3):
        check("image", {"batch": batch, "high": high, "wide": wide})


ENLARGED = {"scales": np.array([1, 1, 2, 1.5], np.float32)}
BESIDE: dict[str, Any] = {
    "enlarged": ([node("Resize", "x _ scales", "y")], ENLARGED),
    "interpolated": (
        [node("Conv", "x w", "c"), node("Resize", "c _ scales", "y", mode="linear")],
        {**ENLARGED, "w": np.ones((3, 1, 3, 3), np.float32)},
    ),
    "least": (
        [node("Min", "x k", "y")],
        {"k": np.array([0.1, -0.2], np.float32).reshape(1, 2, 1, 1)},
    ),
    "scaled": (
        [node("Conv", "x w", "c", pads=[1] * 4), node("Mul", "x c", "y")],
        {"w": np.ones((5, 1, 3, 3), np.float32)},
    ),
    "places": (
        [
            node("Conv", "x w", "c"),
            node("MaxPool", "c", "m i", kernel_shape=[2, 3], pads=[1, 1, 0, 1]),
            node("Cast", "i", "f", to=FLOAT),
            node("Sub", "f m", "y"),
        ],
        {"w": noise(3, 1, 3, 3)},
    ),
    "parts": (
        [node("Split", "x sizes", "a b c", axis=3), node("Concat", "c b a", "y", axis=3)],
        {"sizes": np.array([2, 0, 5])},
    ),
    "parts of a shape": (
        [
            node("Shape", "x", "s"),
            node("Split", "s", "n c h w", num_outputs=4),
            node("Mul", "c h", "ch"),
            node("Concat", "n w ch", "k", axis=0),
            node("Reshape", "x k", "y"),
        ],
        {},
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_an_open_batch_stays_beside_whatever_is_done(name: str) -> None:
    nodes, constants = BESIDE[name]
    for each in nodes:
        each.input[:] = ["" if given == "_" else given for given in each.input]
    image: list[Any] = ["n", 1, 6, 7]
    proto = build(nodes, [("x", FLOAT, image)], [("y", FLOAT, None)], constants)
    session = InferenceSession(driver.compile_source(proto, Options(threads=1)).artifact)
    reference = onnxruntime.InferenceSession(proto.SerializeToString())
    for batch in (1, 3, 5):
        feed = {"x": noise(batch, 1, 6, 7)}
        (got,) = session.run(None, feed)
        wanted: Any = reference.run(None, feed)[0]
        np.testing.assert_allclose(got, wanted, 1e-3, 1e-4)
