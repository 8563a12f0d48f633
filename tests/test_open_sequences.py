"""Sequences of different lengths, and masks, in batches of any size."""

from typing import Any

import numpy as np
import pytest
from onnx_models import FLOAT, build, node, noise

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.frontends.onnx_reference import OnnxReference
from hybridc.compiler.runtime.session import InferenceSession

INT32, INT64, BOOL = 6, 7, 9
HIDDEN = 3
TURNED = [
    node("Cast", "lengths", "longs", to=INT64),
    node("ReverseSequence", "x longs", "turned", time_axis=0, batch_axis=1),
    node("Transpose", "x", "first", perm=[1, 0, 2]),
    node("ReverseSequence", "first longs", "turned_too", time_axis=1, batch_axis=0),
]
LAYER = node("LSTM", "x w r b lengths", "y h c", hidden_size=HIDDEN, direction="bidirectional")


@pytest.mark.parametrize("steps", [5, "steps"])
def test_lengths_beside_open_sizes(steps: Any) -> None:
    layer = [LAYER] if steps == 5 else []  # others have no open number of steps beside lengths
    outputs = [name for made in (*layer, *TURNED[1::2]) for name in made.output]
    model = build(
        [*layer, *TURNED],
        [("x", FLOAT, [steps, "batch", 4]), ("lengths", INT32, ["batch"])],
        [(name, FLOAT, None) for name in outputs],
        {"w": noise(2, 12, 4), "r": noise(2, 12, HIDDEN), "b": noise(2, 24)},
    )
    options = Options(threads=1, verify="off", fallback=False)
    session = InferenceSession(driver.compile_source(model, options).artifact, 1)
    for batch, time in ((1, 5), (4, 5), (3, 5 if steps == 5 else 9)):
        lengths = (np.arange(batch) * 2 % time + 1).astype(np.int32)
        feed = {"x": noise(time, batch, 4), "lengths": lengths}
        wanted = OnnxReference(model)(feed)
        for name, got, right in zip(outputs, session.run(None, feed), wanted, strict=True):
            np.testing.assert_allclose(got, right, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("opset", [9, 13])
def test_the_mask_of_a_dropout_in_a_batch_of_any_size(opset: int) -> None:
    """Older exporters name it in every model, though nothing reads it."""
    kind = BOOL if opset > 9 else FLOAT
    model = build(
        [node("Dropout", "x", "d mask"), node("Relu", "d", "y")],
        [("x", FLOAT, ["batch", 4])],
        [("y", FLOAT, None), *([("mask", kind, None)] if opset > 9 else [])],
        opset=opset,
    )
    options = Options(threads=1, verify="off", fallback=False)
    session = InferenceSession(driver.compile_source(model, options).artifact, 1)
    feed = {"x": noise(3, 4)}
    for got, right in zip(session.run(None, feed), OnnxReference(model)(feed), strict=True):
        np.testing.assert_array_equal(got, right)
