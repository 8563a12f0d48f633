"""Fourier transforms of float32 in float64, since ONNX Runtime's are inexact.

ONNX Runtime 1.31 computes lengths that are no power of two by Bluestein's algorithm in the type of
the input: of 400 numbers it is 5e-3 off in float32, and right in float64.
"""

from hybridc.compiler.frontends.onnx_graph import writer
from hybridc.compiler.frontends.onnx_graph.element_types import walk
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.writer import Writer, domain_of

# Which inputs are of the type that each computes in.
_TRANSFORMS = {"DFT": (0,), "STFT": (0, 2)}
_DOUBLE = 11  # of ONNX's element types


def are_used(graph: Proto) -> bool:
    """Whether a graph has such a transform."""
    return any(map(_is_transform, walk(graph)))


def write_out(proto: Proto) -> None:
    """Write each one of a model with casts around it, in place and in subgraphs too."""
    writer.replace(proto, "transform", _is_transform, _widened)


def _widened(w: Writer) -> None:
    node = w.node
    signal, result = w.input(0), node.output[0]
    for index in _TRANSFORMS[node.op_type]:
        if given := w.input(index):
            node.input[index] = w.emit("Cast", [given], to=_DOUBLE)
    node.output[0] = f"{w.prefix}/wide"
    w.nodes.append(node)
    w.emit("CastLike", [node.output[0], signal], result)


def _is_transform(node: Proto) -> bool:
    return node.op_type in _TRANSFORMS and not domain_of(node)
