"""Padding that follows from sizes (`auto_pad` SAME_*), as a loop over windows computes it."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx_models import FLOAT, build, node, noise

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontend import load
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.session import InferenceSession

# Extent, window, stride, dilation.
CASES = [(9, 1, 3, 1), (10, 1, 2, 1), (9, 3, 1, 2), (10, 2, 1, 3), (9, 3, 2, 3), (10, 3, 3, 2)]
CHANNELS = 2
W = noise(3, CHANNELS, 5)


def pooled(kind: str, x: Array, window: int, stride: int, dilation: int, lower: bool) -> Array:
    """What ONNX's text says of one axis."""
    count = -(-x.shape[-1] // stride)
    reach = dilation * (window - 1) + 1
    total = max(0, (count - 1) * stride + reach - x.shape[-1])
    start = total - total // 2 if lower else total // 2
    made: list[Array] = []
    for begin in np.arange(count) * stride - start:
        places = begin + dilation * np.arange(window)
        inside = (places >= 0) & (places < x.shape[-1])
        values = x[..., places[inside]]
        if kind == "Conv":
            made.append(np.einsum("nck,ock->no", values, W[..., :window][..., inside]))
        else:
            made.append(values.max(-1) if kind == "MaxPool" else values.mean(-1))
    return np.stack(made, axis=-1)


@pytest.mark.parametrize("kind", ["AveragePool", "Conv", "MaxPool"])
@pytest.mark.parametrize("mode", ["SAME_LOWER", "SAME_UPPER"])
def test_windows_with_holes_and_far_apart(kind: str, mode: str) -> None:
    for extent, window, stride, dilation in CASES:
        x = noise(1, CHANNELS, extent)
        options: dict[str, Any] = {"strides": [stride], "dilations": [dilation]}
        if kind != "Conv":
            options["kernel_shape"] = [window]
        weights = {"w": W[..., :window]} if kind == "Conv" else {}
        made = node(kind, " ".join(["x", *weights]), "y", auto_pad=mode, **options)
        inputs, outputs = [("x", FLOAT, list(x.shape))], [("y", FLOAT, None)]
        model = build([made], inputs, outputs, weights, opset=22)
        loaded = load(model)
        wanted = pooled(kind, x, window, stride, dilation, mode == "SAME_LOWER")
        (got,), (right,) = evaluate(loaded.module, [x]), loaded.reference({"x": x})
        case = f"extent {extent}, window {window}, stride {stride}, dilation {dilation}"
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5, err_msg=case)
        np.testing.assert_allclose(right, wanted, rtol=1e-5, atol=1e-5, err_msg=case)


def test_an_image_of_open_size() -> None:
    """Where windows follow each other without a stride no size is asked for."""
    options: dict[str, Any] = {"kernel_shape": [3, 3], "dilations": [2, 1]}
    model = build(
        [node("MaxPool", "x", "y", auto_pad="SAME_LOWER", **options)],
        [("x", FLOAT, ["n", 2, "h", "w"])],
        [("y", FLOAT, None)],
        opset=22,
    )
    loaded = load(model)
    x = noise(2, 2, 7, 5)
    (got,), (right,) = evaluate(loaded.module, [x]), loaded.reference({"x": x})
    assert got.shape == x.shape
    np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("kind", ["Conv", "MaxPool"])
@pytest.mark.parametrize("mode", ["SAME_LOWER", "SAME_UPPER"])
def test_strides_over_open_sizes(kind: str, mode: str) -> None:
    """With what is added to the result, whose size has to be seen to be the same."""
    options: dict[str, Any] = {"strides": [2, 3], "dilations": [1, 1]}
    if kind != "Conv":
        options["kernel_shape"] = [3, 3]
    weights = {"w": noise(2, 2, 3, 3)} if kind == "Conv" else {}
    name = " ".join(["x", *weights])
    nodes = [
        node(kind, name, "a", auto_pad=mode, **options),
        node("Relu", "x", "r"),
        node(kind, " ".join(["r", *weights]), "b", auto_pad=mode, **options),
        node("Add", "a b", "y"),
    ]
    given: list[Any] = [("x", FLOAT, ["n", 2, "h", "v"])]
    proto = build(nodes, given, [("y", FLOAT, None)], weights)
    session = InferenceSession(driver.compile_source(proto, Options(threads=1)).artifact, 1)
    reference = onnxruntime.InferenceSession(proto.SerializeToString())
    for height, width in ((4, 7), (5, 9), (8, 8), (9, 2), (1, 1)):
        feed = {"x": noise(2, 2, height, width)}
        (got,) = session.run(None, feed)
        right: Any = reference.run(None, feed)[0]
        np.testing.assert_allclose(got, right, 1e-4, 1e-5, err_msg=f"{height} x {width}")


def test_averages_over_open_sizes_are_refused_in_one_line() -> None:
    made = node("AveragePool", "x", "y", auto_pad="SAME_UPPER", kernel_shape=[3], strides=[2])
    proto = build([made], [("x", FLOAT, [1, 2, "l"])], [("y", FLOAT, None)])
    with pytest.raises(ModelError, match=r"auto_pad=SAME_UPPER, strides and open sizes; .*--shape"):
        load(proto)
