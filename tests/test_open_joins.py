"""Operands whose open sizes are equal where these are multiples of something."""

from typing import Any

import numpy as np
import onnxruntime
import open_models
import pytest
from onnx_models import FLOAT, build, node, noise

from hybridc.compiler import driver, frontend
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError, ModelError
from hybridc.compiler.runtime.session import InferenceSession


def sessions(proto: Any) -> tuple[InferenceSession, Any]:
    """Ours, and one of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    reference = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return InferenceSession(driver.compile_source(proto, Options(threads=1)).artifact), reference


@pytest.mark.parametrize("enlarge", ["ConvTranspose", "nearest", "linear"])
def test_what_was_halved_and_doubled_is_joined_at_multiples(enlarge: str) -> None:
    ours, reference = sessions(open_models.unet(enlarge))
    assert ours.artifact.inputs[0].describe() == "x float32[n,2,h:4..%4,w:4..%4]"
    for shape in ((1, 2, 4, 4), (2, 2, 8, 12), (1, 2, 36, 20), (3, 2, 4, 68)):
        feed = {"x": noise(*shape)}
        (got,), (wanted,) = ours.run(None, feed), reference.run(None, feed)
        np.testing.assert_allclose(got, wanted, 1e-3, 1e-4)
    odd = {"x": noise(1, 2, 8, 6)}
    with pytest.raises(
        InputError, match=r"wanted: x float32\[n,2,h:4..%4,w:4..%4\], given: .*,6\]"
    ):
        ours.run(None, odd)
    with pytest.raises(Exception, match="Concat"):
        reference.run(None, odd)


def test_the_multiple_is_told_and_may_be_given() -> None:
    model = frontend.load(open_models.unet())
    assert "h is a multiple of 4: else operands of Concat differ in size" in model.notes
    given = frontend.load(open_models.unet(), shapes={"h": "1..70%8@16", "w": 20})
    assert given.inputs[0].describe() == "x float32[n,2,h:8..64%8,20]"
    assert not any("multiple" in note for note in given.notes)


@pytest.mark.parametrize("size", ["1..3", "?@6"])
def test_bounds_without_a_multiple_are_refused(size: str) -> None:
    with pytest.raises(ModelError, match=r"operator 'Concat'.*--shape"):
        frontend.load(open_models.unet(), shapes={"h": size})


def test_a_sum_of_what_strides_left_out_is_taken_at_multiples() -> None:
    nodes = [
        node("MaxPool", "x", "p", kernel_shape=[3], strides=[3]),
        node("Conv", "p k", "c", pads=[1, 1]),
        node("ConvTranspose", "c t", "u", strides=[3]),
        node("Add", "u x", "y"),
    ]
    weights = {"k": noise(2, 2, 3), "t": noise(2, 2, 3)}
    proto = build(nodes, [("x", FLOAT, ["n", 2, "length"])], [("y", FLOAT, None)], weights)
    ours, reference = sessions(proto)
    assert ours.artifact.inputs[0].describe() == "x float32[n,2,length:3..%3]"
    for length in (3, 6, 33, 99):
        feed = {"x": noise(2, 2, length)}
        (got,), (wanted,) = ours.run(None, feed), reference.run(None, feed)
        np.testing.assert_allclose(got, wanted, 1e-3, 1e-4)


def test_what_was_cut_off_a_joined_axis_is_turned() -> None:
    """TVM fails where it is asked whether a transpose of size 2 n - 1 only reshapes."""
    nodes = [
        node("Concat", "x x", "c", axis=1),
        node("Slice", "c one end one", "s"),
        node("Softmax", "s", "a"),
        node("Transpose", "a", "b", perm=[0, 2, 3, 1]),
        node("Softmax", "b", "y"),
    ]
    ends = {"one": np.array([1]), "end": np.array([2**63 - 1])}
    session, reference = sessions(
        build(nodes, [("x", FLOAT, [1, "n", 3, 8])], [("y", FLOAT, None)], ends)
    )
    for count in (1, 2, 7):
        feed = {"x": noise(1, count, 3, 8)}
        (got,), (wanted,) = session.run(None, feed), reference.run(None, feed)
        np.testing.assert_allclose(got, wanted, 1e-3, 1e-4)
