"""GridSample by rows of channels or by planes, against ONNX Runtime."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import hybridc
from hybridc.compiler.model import Array


def graph_of(shapes: dict[str, list[Any]], result: list[Any], **attributes: Any) -> Any:
    """A model of one GridSample."""
    node = helper.make_node("GridSample", list(shapes), ["y"], **attributes)
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, result)
    graph = helper.make_graph([node], "sampled", given, [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def sampled(x: Array, grid: Array, target: str = "cpu", **attributes: Any) -> tuple[Array, Array]:
    """What an artifact and what ONNX Runtime make of an image and a grid."""
    feed = {"x": x, "grid": grid}
    shapes = {name: list(each.shape) for name, each in feed.items()}
    model = graph_of(shapes, [*x.shape[:2], *grid.shape[1:3]], **attributes)
    artifact = hybridc.compile(model, verify="off", threads=1, target=target)
    between = attributes["padding_mode"] == "reflection" and attributes.get("align_corners")
    assert bool(artifact.regions) == bool(between and 1 in x.shape[2:])
    (got,) = hybridc.InferenceSession(artifact, 1).run(None, feed)
    other = onnxruntime.InferenceSession(model.SerializeToString(), None, ["CPUExecutionProvider"])
    return got, np.asarray(other.run(None, feed)[0])


@pytest.mark.parametrize("target", ["cpu", "avx2"])
@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("shape", [(2, 9, 11, 7), (1, 32, 1, 5), (3, 3, 4, 6), (1, 17, 8, 1)])
def test_neighbours_are_weighted_as_by_onnx_runtime(
    target: str, aligned: int, padding: str, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    grid = rng.uniform(-1.4, 1.4, (shape[0], 5, 13, 2)).astype(np.float32)
    options = {"mode": "linear", "align_corners": aligned, "padding_mode": padding}
    got, wanted = sampled(x, grid, target, **options)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_few_pixels_of_a_large_image(mode: str) -> None:
    """The image is not turned for them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 31, 33)).astype(np.float32)
    grid = rng.uniform(-1.4, 1.4, (2, 2, 3, 2)).astype(np.float32)
    got, wanted = sampled(x, grid, mode=mode, padding_mode="zeros", align_corners=1)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_pixels_on_the_edges(padding: str) -> None:
    """Corners, the middle of pixels, and what lies half or wholly outside."""
    x = np.arange(1, 8 * 4 * 4 + 1, dtype=np.float32).reshape(1, 8, 4, 4)
    places = np.array([-2, -1.25, -1, -0.75, -0.25, 0, 0.75, 1, 1.25, 2], np.float32)
    grid = np.stack(np.meshgrid(places, places), -1)[None]
    got, wanted = sampled(x, grid, mode="linear", padding_mode=padding)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_places_far_away_and_no_numbers_read_nothing_outside() -> None:
    x = np.ones((1, 8, 4, 4), np.float32)
    grid = np.full((1, 1, 5, 2), [0, 0], np.float32)
    grid[0, 0, :, 0] = [np.nan, np.inf, -np.inf, 1e30, -1e30]
    got, _ = sampled(x, grid, mode="linear", padding_mode="zeros")
    assert not got.any()


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_batch_and_grid_may_be_open(padding: str) -> None:
    """And neighbours are found once for all channels then too."""
    shapes = {"x": ["n", 11, 6, 9], "grid": ["n", "rows", 7, 2]}
    options = {"mode": "linear", "padding_mode": padding}
    model = graph_of(shapes, ["n", 11, "rows", 7], **options)
    artifact = hybridc.compile(model, verify="off", threads=1)
    kernels = {told["kernel"] for told in artifact.report["kernels"]}
    assert "_sampled" in kernels
    assert "grid_sample" not in kernels
    session = hybridc.InferenceSession(artifact, 1)
    other = onnxruntime.InferenceSession(model.SerializeToString(), None, ["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for batch, rows in ((1, 1), (3, 5), (2, 40)):
        feed = {
            "x": rng.standard_normal((batch, 11, 6, 9)).astype(np.float32),
            "grid": rng.uniform(-1.4, 1.4, (batch, rows, 7, 2)).astype(np.float32),
        }
        (got,) = session.run(None, feed)
        np.testing.assert_allclose(got, np.asarray(other.run(None, feed)[0]), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("mode", ["nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("shape", [(2, 9, 11, 7), (1, 1, 5, 1), (3, 3, 4, 6)])
def test_other_modes(mode: str, padding: str, shape: tuple[int, ...]) -> None:
    """Places between pixels, on them, halfway, and several images outside."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    aligned = shape[1] % 2 if 1 not in shape[2:] else 0
    grid = rng.uniform(-4.4, 4.4, (shape[0], 5, 13, 2)).astype(np.float32)
    grid[:, 0] = rng.integers(-9, 9, (shape[0], 13, 2)) / np.float32(4)
    grid[0, 1, :3] = [[1, 1], [-1, -1], [0, 0]]
    options: dict[str, Any] = {"mode": mode, "align_corners": aligned, "padding_mode": padding}
    got, wanted = sampled(x, grid, **options)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("target", ["cpu", "avx2"])
@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_what_is_no_number_stays_where_it_is(target: str, channels: int, mode: str) -> None:
    """A pixel that is infinite or no number says nothing of what lies far outside."""
    x = np.ones((1, channels, 6, 6), np.float32)
    x[:, :, 0], x[:, :, -1] = np.inf, np.nan
    grid = np.array([[0, 0.17], [-9, -9], [0.1, 8], [7, 0.3], [0.5, -0.96]], np.float32)
    got, wanted = sampled(x, grid[None, None], target, mode=mode, padding_mode="zeros")
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "cubic"])
def test_no_number_of_a_place_reads_outside(mode: str, padding: str) -> None:
    grid = np.zeros((1, 1, 5, 2), np.float32)
    grid[0, 0, :, 0] = [np.nan, np.inf, -np.inf, 1e30, -1e30]
    got, _ = sampled(np.ones((1, 8, 4, 4), np.float32), grid, mode=mode, padding_mode=padding)
    if padding == "zeros":
        assert not got.any()
    elif padding == "border":
        np.testing.assert_allclose(got, 1, rtol=1e-6)
    else:
        assert np.all(np.isnan(got) | (np.abs(got) < 4))
