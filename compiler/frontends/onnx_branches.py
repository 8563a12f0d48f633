"""Replace an ONNX `If` whose condition is constant by the branch that it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.frontends.onnx_file import Proto


@dataclass(frozen=True)
class Branch:
    """What stands in the place of the `If`."""

    nodes: list[Proto]
    constants: list[Proto]


def inline_branch(node: Proto, constants: Mapping[str, Proto]) -> Branch | None:
    """Return the taken branch with names of the outer graph, or None where none is known.

    ONNX names are unique through all scopes that see each other, but the two branches may use the
    same names, so inner names get the node's first output as prefix.
    """
    import onnx

    if node.op_type != "If" or node.domain or node.input[0] not in constants:
        return None
    condition = onnx.numpy_helper.to_array(constants[node.input[0]])
    wanted = "then_branch" if condition.size == 1 and condition.item() else "else_branch"
    graph = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
    inner = [tensor.name for tensor in graph.initializer]
    inner += [name for body in graph.node for name in body.output if name]
    names = {name: f"{node.output[0]}/{name}" for name in inner}
    nodes = [_renamed(body, names) for body in graph.node]
    tensors = [_copy(tensor) for tensor in graph.initializer]
    for tensor in tensors:
        tensor.name = names[tensor.name]
    results: list[Any] = [names.get(value.name, value.name) for value in graph.output]
    nodes += [
        onnx.helper.make_node("Identity", [source], [target])
        for source, target in zip(results, node.output, strict=True)
        if target
    ]
    return Branch(nodes, tensors)


def _renamed(node: Proto, names: Mapping[str, str]) -> Proto:
    made = _copy(node)
    _rename(made, names)
    return made


def _rename(node: Proto, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for inner in graph.node:
                _rename(inner, names)
            for value in graph.output:
                value.name = names.get(value.name, value.name)


def _copy(message: Proto) -> Any:
    made = type(message)()
    made.CopyFrom(message)
    return made
