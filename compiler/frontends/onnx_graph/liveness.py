"""Which nodes of an ONNX graph its outputs need."""

from hybridc.compiler.frontends.onnx_graph.model_file import Proto


def leave_out_dead(graph: Proto) -> None:
    """Take out, in place, the nodes that no output needs: nobody has to know their operators."""
    needed = {value.name for value in graph.output}
    live: list[Proto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            live.append(node)
            needed.update(used_names(node))
    del graph.node[:]
    graph.node.extend(reversed(live))


def used_names(node: Proto) -> set[str]:
    """Every name that a node reads, also from within its subgraphs; omitted inputs have none."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            names.update(value.name for value in graph.output)
            for inner in graph.node:
                names.update(used_names(inner))
    return names
