"""MeanVarianceNormalization in two passes, since ONNX Runtime's variance may be negative.

ONNX Runtime 1.31 takes the square of the mean from the mean of squares.  Of values that are nearly
the same, and of a single one, that rounds to less than 0, of which the root is NaN.
"""

import numpy as np

from hybridc.compiler.frontends.onnx_graph import writer
from hybridc.compiler.frontends.onnx_graph.element_types import walk
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.writer import Writer, domain_of

_AXES_ARE_INPUTS = 18  # the opset since which ReduceMean has its axes as an input
_EPSILON = 1e-9


def are_used(graph: Proto) -> bool:
    """Whether a graph has such a norm."""
    return any(map(_is_norm, walk(graph)))


def write_out(proto: Proto) -> None:
    """Write each one of a model by the mean of squared deviations, in place."""
    writer.replace(proto, "variance", _is_norm, _in_two_passes)


def _in_two_passes(w: Writer) -> None:
    x, axes = w.input(0), list(w.attribute("axes", [0, 2, 3]))

    def mean(of: str) -> str:
        if w.opset < _AXES_ARE_INPUTS:
            return w.emit("ReduceMean", [of], axes=axes)
        return w.emit("ReduceMean", [of, w.constant(np.array(axes, np.int64))])

    centred = w.emit("Sub", [x, mean(x)])
    deviation = w.emit("Sqrt", [mean(w.emit("Mul", [centred, centred]))])
    epsilon = w.constant(np.float32(_EPSILON))
    w.emit("Div", [centred, w.emit("Add", [deviation, epsilon])], w.node.output[0])


def _is_norm(node: Proto) -> bool:
    return node.op_type == "MeanVarianceNormalization" and not domain_of(node)
