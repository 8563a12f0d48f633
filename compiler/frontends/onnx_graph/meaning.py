"""What ONNX Runtime computes otherwise than ONNX means, in operators that it computes right."""

from typing import Any

from hybridc.compiler.frontends.onnx_graph import (
    ceil_pooling,
    corners,
    same_padding,
    split_sequences,
    transforms,
    variances,
)
from hybridc.compiler.frontends.onnx_graph.versions import lower_numbers


def is_misread(proto: Any) -> bool:
    """Whether ONNX Runtime computes some of a model otherwise than ONNX means, or inexactly."""
    return (
        ceil_pooling.are_miscounted(proto)
        or corners.are_rounded(proto)
        or same_padding.are_misread(proto.graph.node)
        or split_sequences.are_squeezed(proto.graph)
        or transforms.are_used(proto.graph)
        or variances.are_used(proto.graph)
    )


def write_out(proto: Any) -> None:
    """Write operators so that ONNX Runtime computes what ONNX means."""
    import onnx

    lower_numbers(proto)
    ceil_pooling.write_out(proto)
    corners.write_out(proto)
    split_sequences.write_out(proto.graph)
    transforms.write_out(proto)
    variances.write_out(proto)
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    types = {value.name: value.type for value in [*graph.input, *graph.value_info]}
    for tensor in graph.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    same_padding.write_out(proto.graph.node, types)
