"""Write nodes of an ONNX graph in the place of others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph.element_types import graphs
from hybridc.compiler.frontends.onnx_graph.model_file import Proto, copied


@dataclass(frozen=True)
class Place:
    """A node of a graph of the operators of `opset`; new names around it begin with `prefix`."""

    graph: Proto
    node: Proto
    prefix: str
    opset: int


def scratch(node: Proto, opset: int) -> Place:
    """The place of a node whose constants are collected in a graph of their own."""
    import onnx

    name = next((name for name in node.output if name), node.op_type)
    return Place(onnx.GraphProto(), node, f"{name}/{node.op_type}", opset)


class Writer:
    """Makes the nodes that take the place of one."""

    def __init__(self, place: Place) -> None:
        self.graph, self.node = place.graph, place.node
        self.prefix, self.opset = place.prefix, place.opset
        self.nodes: list[Proto] = []

    def input(self, index: int) -> str:
        """The name of an input, "" where it is left out."""
        return str(self.node.input[index]) if len(self.node.input) > index else ""

    def emit(
        self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any
    ) -> str:
        """A node, and the name of its output."""
        import onnx

        name = output or f"{self.prefix}/{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        """The name of a new initialiser."""
        import onnx

        name = f"{self.prefix}/constant{len(self.graph.initializer)}"
        self.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the node that is replaced; text as `str`."""
        import onnx

        found = (a for a in self.node.attribute if a.name == name)
        value = next((onnx.helper.get_attribute_value(a) for a in found), default)
        return value.decode(errors="replace") if isinstance(value, bytes) else value


def domain_of(node: Proto) -> str:
    """The domain of a node's operator, "" for ONNX's own."""
    return "" if node.domain == "ai.onnx" else str(node.domain)


def opset_of(proto: Proto) -> int:
    """The version of ONNX's own operators that a model uses."""
    found = [o.version for o in proto.opset_import if domain_of(o) == ""]
    return int(max(found, default=1))


def replace(
    proto: Proto, kind: str, wanted: Callable[[Proto], bool], write: Callable[[Writer], None]
) -> None:
    """Have `write` write each wanted node of a model otherwise, in place and in subgraphs too.

    `kind` is in the names of what is written.
    """
    opset = opset_of(proto)
    for graph in graphs(proto.graph):
        nodes: list[Proto] = []
        for index, node in enumerate(graph.node):
            if wanted(node):
                prefix = f"{node.output[0]}/{kind}{index}"
                writer = Writer(Place(graph, copied(node), prefix, opset))
                write(writer)
                nodes += writer.nodes
            else:
                nodes.append(copied(node))
        del graph.node[:]
        graph.node.extend(nodes)
