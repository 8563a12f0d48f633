"""Norms of single elements and of open channels, and pools whose strides leave elements out."""

from typing import Any

import numpy as np
import pytest
from onnx_models import FLOAT, INT64, build, call, check, node, noise

from hybridc.compiler import frontend


def test_statistics_of_single_elements() -> None:
    """The mean of squares less the square of the mean is not 0 of them, once it is rounded."""
    names = [("y", FLOAT, None), ("mean", FLOAT, None), ("inverse", FLOAT, None)]
    layer = node("LayerNormalization", "x s", "y mean inverse", axis=-1)
    model = build([layer], [("x", FLOAT, ["n", "k"]), ("s", FLOAT, ["k"])], names)
    x = 30 * noise(20, 1)
    y, mean, inverse = call(model, x, np.ones(1, np.float32))
    np.testing.assert_array_equal(y, np.zeros_like(x))
    np.testing.assert_array_equal(mean, x)
    np.testing.assert_allclose(inverse, np.full_like(x, 1e-5**-0.5), rtol=1e-6)


def test_a_small_variance_beside_a_large_mean() -> None:
    x = 300 + noise(3, 8)
    layer = node("LayerNormalization", "x s", "y mean inverse", axis=-1)
    names = [("y", FLOAT, None), ("mean", FLOAT, None), ("inverse", FLOAT, None)]
    model = build([layer], [("x", FLOAT, [3, 8])], names, {"s": np.ones(8, np.float32)})
    *_, inverse = check(frontend.load(model), {"x": x})
    wanted = 1 / np.sqrt(x.astype(np.float64).var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(inverse, wanted, rtol=1e-3)


@pytest.mark.parametrize("opset", [13, 20])
def test_what_does_not_vary_is_0_after_its_norm(opset: int) -> None:
    """ONNX Runtime takes the root of a negative variance, and is not believed."""
    norm = node("MeanVarianceNormalization", "x", "y")
    model = build([norm], [("x", FLOAT, [1, 3, 1, 1])], [("y", FLOAT, None)], opset=opset)
    (got,) = check(frontend.load(model), {"x": noise(1, 3, 1, 1)})
    np.testing.assert_array_equal(got, np.zeros((1, 3, 1, 1)))


def test_norms_of_open_channels_and_pools_by_long_strides() -> None:
    """Each pixel of a pool of one by strides of two is one of the image's, whatever its size."""
    nodes = [
        node("InstanceNormalization", "x s b", "n"),
        node("MaxPool", "n", "p", kernel_shape=[1, 2], strides=[2, 3], ceil_mode=1),
        node("AveragePool", "p", "q", kernel_shape=[1, 1], strides=[2, 2], ceil_mode=1),
        node("LpPool", "q", "y", kernel_shape=[2, 2], strides=[1, 2], ceil_mode=1),
    ]
    given = [("x", FLOAT, ["n", "c", "h", "w"]), ("s", FLOAT, ["c"]), ("b", FLOAT, ["c"])]
    model = build(nodes, given, [("y", FLOAT, None)])
    (y,) = call(model, noise(2, 5, 8, 9), noise(5), noise(5))  # compared at other sizes as well
    assert y.shape == (2, 5, 1, 1)


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool", "LpPool"])
def test_shapes_are_those_of_what_is_computed(kind: str) -> None:
    """ONNX's inference counts a window that begins behind the image."""
    nodes: list[Any] = [
        node(kind, "x", "p", kernel_shape=[1, 1], strides=[2, 2], ceil_mode=1),
        node("Shape", "p", "shape"),
        node("Flatten", "p", "f"),
        node("MatMul", "f w", "y"),
    ]
    outputs = [("shape", INT64, None), ("y", FLOAT, None)]
    model = build(nodes, [("x", FLOAT, [1, 2, 8, 8])], outputs, {"w": noise(32, 3)})
    shape, _ = check(frontend.load(model))
    np.testing.assert_array_equal(shape, [1, 2, 4, 4])
