"""SplitToSequence with sizes of the parts, beside which `keepdims` is ignored.

ONNX Runtime (1.31) drops the axis of parts of one given size all the same, or fails to.
"""

from hybridc.compiler.frontends.onnx_graph.element_types import walk
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.writer import domain_of


def are_squeezed(graph: Proto) -> bool:
    """Whether a graph has such a node whose attribute could be taken to mean something."""
    return any(map(_is_squeezed, walk(graph)))


def write_out(graph: Proto) -> None:
    """Leave the attribute out, in place, in subgraphs too."""
    for node in filter(_is_squeezed, walk(graph)):
        kept = [item for item in node.attribute if item.name != "keepdims"]
        del node.attribute[:]
        node.attribute.extend(kept)


def _is_squeezed(node: Proto) -> bool:
    return (
        node.op_type == "SplitToSequence"
        and not domain_of(node)
        and any(node.input[1:])
        and any(item.name == "keepdims" and not item.i for item in node.attribute)
    )
