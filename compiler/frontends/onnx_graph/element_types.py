"""Which values of an ONNX graph have elements of less than a byte."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.runtime import carriers

Kinds = dict[str, str]  # element types of values by name


def narrow(kind: str) -> str:
    """The type if it is of less than a byte, else ""."""
    return kind if kind in carriers.CARRIERS else ""


def holds(graph: Proto) -> bool:
    """Whether a graph itself names values of less than a byte."""
    return any(kind in carriers.CARRIERS for kind in kinds_of(graph).values())


def kinds_of(graph: Proto) -> Kinds:
    """What a graph itself says of its values' elements."""
    values = [*graph.input, *graph.output, *graph.value_info]
    numbers = [(value.name, value.type.tensor_type.elem_type) for value in values]
    numbers += [(tensor.name, tensor.data_type) for tensor in graph.initializer]
    return {str(name): name_of(number) for name, number in numbers if number}


def concerned(node: Proto) -> bool:
    """Whether a node's attributes name such a type, or hold such elements."""
    for item in node.attribute:
        if item.name in ("to", "output_dtype", "dtype") and name_of(item.i) in carriers.CARRIERS:
            return True
        held = [item.t] if item.HasField("t") else item.tensors
        if any(name_of(tensor.data_type) in carriers.CARRIERS for tensor in held):
            return True
        if any(map(holds, [item.g] if item.HasField("g") else item.graphs)):
            return True
    return False


def walk(graph: Proto) -> Iterator[Proto]:
    """Every node of a graph, in its subgraphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from walk(inner)


def graphs(graph: Proto) -> Iterator[Proto]:
    """The graph and all its subgraphs, each before its own; they may be changed as they come."""
    yield graph
    for node in walk(graph):
        for attribute in node.attribute:
            yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def carry(tensor: Proto) -> None:
    """Make a tensor one of the carrier's elements."""
    import onnx

    if name_of(tensor.data_type) in carriers.CARRIERS:
        array = carriers.carried(onnx.numpy_helper.to_array(tensor))
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def carry_type(kind: Any) -> None:
    """Make a tensor's type that of the carrier."""
    if (name := name_of(kind.tensor_type.elem_type)) in carriers.CARRIERS:
        kind.tensor_type.elem_type = number_of(carriers.CARRIERS[name])


def name_of(number: int) -> str:
    """An element type as numpy and ml_dtypes spell it; "" for one that they have not."""
    import onnx

    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(number)) if number else ""
    except KeyError:
        return ""


def number_of(name: str) -> int:
    """ONNX's number of an element type."""
    import onnx

    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)))
