"""From an ONNX file to a graph that the importer takes."""

from collections.abc import Mapping
from dataclasses import replace

from hybridc.compiler.dims import Shape
from hybridc.compiler.frontends.onnx_graph import (
    ceil_pooling,
    functions,
    open_axes,
    quantized,
    same_padding,
    split_sequences,
    sub_byte,
    training,
)
from hybridc.compiler.frontends.onnx_graph.model_file import OnnxFile, Proto
from hybridc.compiler.frontends.onnx_graph.origin import is_of_torch
from hybridc.compiler.frontends.onnx_import import operators
from hybridc.compiler.frontends.onnx_import.folding import StaticGraph, fold
from hybridc.compiler.runtime import carriers


def prepare(file: OnnxFile, bound: Mapping[str, Shape]) -> StaticGraph:
    """Make a graph static and expand the operators that ONNX defines by others.

    Elements of less than a byte are those of their carriers, and padding is in numbers where it is
    known.  Operators that cannot be imported may remain.
    """
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(file.proto)
    open_axes.apply(proto, bound)
    functions.leave_out_shadowed(proto)
    ceil_pooling.write_out(proto)
    split_sequences.write_out(proto.graph)
    _say_one_sided(proto)
    proto, strict = training.written_out(proto), not is_of_torch(proto)
    written = quantized.written_out(proto)
    if written is not proto:  # what ONNX refuses is told of the operator that the file has
        fold(proto, strict=strict)
    # What torch exported need not run in ONNX Runtime.
    first = fold(written, strict=strict, weights=file.weights).proto
    proto = operators.expand_all(first, lambda made: fold(made, weights=file.weights).proto)
    static = fold(proto)
    same_padding.write_out(static.proto.graph.node, static.types)
    carried = sub_byte.carried(static.proto, static.types)
    return static if carried is static.proto else fold(carried)


def _say_one_sided(proto: Proto) -> None:
    """Write out STFT's default, which ONNX's shape inference takes for the other way."""
    import onnx

    for node in operators.walk(proto.graph):
        if node.op_type == "STFT" and all(item.name != "onesided" for item in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("onesided", 1))


def carried(file: OnnxFile) -> OnnxFile:
    """The file with the weights as compiled code holds them."""
    weights = {name: carriers.carried(array) for name, array in file.weights.items()}
    return replace(file, weights=weights)
