"""Images one at a time, of open height and width."""

import numpy as np
import onnxruntime
from onnx_models import FLOAT, build, node, noise

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.runtime.session import InferenceSession


def test_a_convolution_whose_epilogue_is_a_stage_of_its_own() -> None:
    """As of SiLU, which reads the sum twice."""
    nodes = [
        node("Conv", "x v", "p", strides=[8, 8], pads=[2, 2, 2, 2]),
        node("Conv", "p w b", "c"),
        node("Sigmoid", "c", "s"),
        node("Mul", "c s", "y"),
    ]
    weights = {"v": noise(32, 3, 6, 6), "w": noise(32, 32, 1, 1) / 6, "b": noise(32)}
    proto = build(nodes, [("x", FLOAT, [1, 3, "h", "w"])], [("y", FLOAT, None)], weights)
    session = InferenceSession(driver.compile_source(proto, Options(threads=1)).artifact, 1)
    reference = onnxruntime.InferenceSession(proto.SerializeToString())
    for shape in ((1, 3, 2, 5), (1, 3, 19, 36)):
        feed = {"x": noise(*shape)}
        (got,), (wanted,) = session.run(None, feed), reference.run(None, feed)
        np.testing.assert_allclose(got, np.asarray(wanted), 1e-3, 1e-4)
