"""Convolutions whose windows reach beyond their image, over drawn shapes, against ONNX Runtime."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from drawn import drawn
from drawn_models import agree, model, noise
from hypothesis import assume
from hypothesis import strategies as st
from onnx_models import node

from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.driver import compile_source
from hybridc.compiler.runtime.session import InferenceSession


def pair(low: int, high: int) -> Any:
    return st.tuples(*[st.integers(low, high)] * 2)


@drawn(
    5,
    60,
    groups=st.sampled_from([1, 1, 2, 4]),
    channels=pair(1, 9),
    size=pair(1, 5),
    window=pair(1, 6),
    strides=pair(1, 3),
    dilations=pair(1, 7),
    pads=st.tuples(*[st.integers(0, 12)] * 4),
    signal=st.booleans(),
)
def test_windows_beyond_their_image(
    groups: int,
    channels: tuple[int, int],
    size: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    signal: bool,
) -> None:
    if signal:
        size, window, strides, dilations = (v[:1] for v in (size, window, strides, dilations))
        pads = pads[:2]
    rank = len(size)
    reach = [d * (w - 1) + 1 for d, w in zip(dilations, window, strict=True)]
    assume(all(size[i] + pads[i] + pads[rank + i] >= reach[i] for i in range(rank)))
    attributes = dict(strides=strides, dilations=dilations, pads=pads, group=groups)
    inputs, outputs = channels
    feed = {"x": noise((2, inputs * groups, *size))}
    weights = {"w": noise((outputs * groups, inputs, *window)), "b": noise((outputs * groups,))}
    nodes = [node("Conv", "x w b", "c", **attributes), node("Relu", "c", "y")]
    agree(model(nodes, feed, weights), feed, "cpu", None)


def test_bytes_stay_bytes() -> None:
    weights = {
        "scale": np.array(0.5, np.float32),
        "zero": np.array(100, np.uint8),
        "w": np.arange(-108, 108, dtype=np.int8).reshape(4, 6, 3, 3),
        "w_scale": np.array([0.5, 1, 2, 0.25], np.float32),
        "w_zero": np.zeros(4, np.int8),
    }
    nodes = [
        node("QuantizeLinear", "x scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "f"),
        node("DequantizeLinear", "w w_scale w_zero", "v", axis=0),
        node("Conv", "f v", "y", pads=[5, 1, 5, 1], dilations=[5, 1]),
    ]
    feed = {"x": np.arange(2 * 6 * 4 * 3).astype(np.float32).reshape(2, 6, 4, 3)}
    whole = model(nodes, feed, weights)
    outcome = compile_source(whole, Options(verify="off", threads=1))
    (got,) = InferenceSession(outcome.artifact, 1).run(None, feed)
    session = onnxruntime.InferenceSession(whole.SerializeToString())
    np.testing.assert_array_equal(got, session.run(None, feed)[0])
    assert "int8" in {kernel.precision for kernel in outcome.report.kernels}


@pytest.mark.parametrize(
    ("window", "stride", "dilation", "pads", "groups"),
    [((5, 5, 5), 1, 1, (2, 2), 1), ((4, 2, 3), 2, 1, (2, 3), 2), ((3, 1, 2), 1, 2, (3, 2), 1)],
)
def test_slices_that_see_the_same_taps_are_convolved_apart(
    window: tuple[int, ...], stride: int, dilation: int, pads: tuple[int, int], groups: int
) -> None:
    attributes: dict[str, Any] = dict(
        strides=(stride, 1, 1),
        dilations=(dilation, 1, 1),
        pads=(pads[0], 1, 0, pads[1], 0, 1),
        group=groups,
    )
    feed = {"x": noise((2, 4, 5, 13, 12))}
    nodes = [node("Conv", "x w b", "c", **attributes), node("Relu", "c", "y")]
    weights = {"w": noise((6, 4 // groups, *window)), "b": noise((6,))}
    agree(model(nodes, feed, weights), feed, "cpu", None)
