"""Write control flow that is known in advance out: the branch of an `If`, the turns of a loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph.model_file import Proto, copied

# Nodes that all loops of a model together may become; more would take minutes to compile.
MOST_NODES = 20_000
_AXES_ARE_INPUTS = 13  # the opset since when Unsqueeze takes them so
_SCAN_IS_PLAIN = 9  # before this opset Scan had a batch axis and lengths


@dataclass(frozen=True)
class Branch:
    """What stands in the place of the node."""

    nodes: list[Proto] = field(default_factory=list[Proto])
    constants: list[Proto] = field(default_factory=list[Proto])


@dataclass(frozen=True)
class Scene:
    """What is known where a node stands: constants, static shapes, and the model's opset.

    `room` is how many nodes a loop may still become; `types` and `makers` are of the values so far.
    """

    constants: Mapping[str, Proto]
    shape: Callable[[str], Sequence[int] | None]
    opset: int
    room: int = MOST_NODES
    types: Mapping[str, Proto] = field(default_factory=dict[str, Proto])
    makers: Mapping[str, Proto] = field(default_factory=dict[str, Proto])


def written_out(node: Proto, scene: Scene) -> Branch | None:
    """What an If, Loop or Scan becomes, with names of the outer graph; None where it has to stay.

    Stays what depends on the data, and what would become too large.
    """
    if node.domain not in ("", "ai.onnx"):
        return None
    match node.op_type:
        case "If":
            return _if(node, scene)
        case "Loop":
            return _loop(node, scene)
        case "Scan":
            return _scan(node, scene)
        case _:
            return None


def _if(node: Proto, scene: Scene) -> Branch | None:
    if node.input[0] not in scene.constants:
        return None
    wanted = "then_branch" if _true(scene.constants[node.input[0]]) else "else_branch"
    branch = Branch()
    results = _turn(branch, _body(node, wanted), _label(node), [])
    for result, name in zip(results, node.output, strict=True):
        _identity(branch, result, name)
    return branch


def _loop(node: Proto, scene: Scene) -> Branch | None:
    """A trip count that is constant, and a condition that never ends the loop."""
    body = _body(node, "body")
    count, condition, *states = [*node.input, "", ""][: max(2, len(node.input))]
    if count not in scene.constants or not goes_on(body, scene.constants):
        return None
    if condition and condition not in scene.constants:
        return None
    trips = int(_array(scene.constants[count]).item())
    if condition and not _true(scene.constants[condition]):
        trips = 0
    scanned = len(body.output) - 1 - len(states)
    if trips * len(body.node) > scene.room or (scanned and trips < 1):
        return None
    branch, parts = Branch(), []
    for turn in range(trips):
        label = f"{_label(node)}/{turn}"
        number = as_constant(branch, f"{label}/number", np.array(turn, np.int64))
        going = as_constant(branch, f"{label}/going", np.array(True))
        _, *results = _turn(branch, body, label, [number, going, *states])
        states = results[: len(states)]
        parts.append(results[len(states) :])
    joined = [(part, 0, False) for part in zip(*parts, strict=True)]
    _finish(branch, node, scene, states, joined)
    return branch


def _scan(node: Proto, scene: Scene) -> Branch | None:
    if scene.opset < _SCAN_IS_PLAIN:
        return None
    options = {item.name: item for item in node.attribute}
    body, count = _body(node, "body"), int(options["num_scan_inputs"].i)
    states, scanned = list(node.input[:-count]), list(node.input[-count:])
    outputs = len(body.output) - len(states)

    def listed(name: str, length: int) -> list[int]:
        return list(options[name].ints) if name in options else [0] * length

    axes, backward = (listed(f"scan_input_{what}", count) for what in ("axes", "directions"))
    shapes = [scene.shape(name) for name in scanned]
    first = shapes[0]
    if first is None or None in shapes:
        return None
    trips = first[axes[0]]
    if trips < 1 or trips * len(body.node) > scene.room:
        return None
    branch, parts = Branch(), []
    for turn in range(trips):
        label = f"{_label(node)}/{turn}"
        elements: list[str] = []
        for index, (name, axis, reverse) in enumerate(zip(scanned, axes, backward, strict=True)):
            place = np.array(trips - 1 - turn if reverse else turn, np.int64)
            at = as_constant(branch, f"{label}/at{index}", place)
            elements.append(f"{label}/element{index}")
            as_node(branch, "Gather", [name, at], elements[-1], axis=axis)
        results = _turn(branch, body, label, [*states, *elements])
        states = results[: len(states)]
        parts.append(results[len(states) :])
    directions = map(bool, listed("scan_output_directions", outputs))
    axes = listed("scan_output_axes", outputs)
    joined = list(zip(zip(*parts, strict=True), axes, directions, strict=False))
    _finish(branch, node, scene, states, joined)
    return branch


def _finish(
    branch: Branch,
    node: Proto,
    scene: Scene,
    states: Sequence[str],
    joined: Sequence[tuple[Sequence[str], int, bool]],
) -> None:
    """Name the last states, and join what each turn put out, along an axis, perhaps backwards."""
    for state, name in zip(states, node.output, strict=False):
        _identity(branch, state, name)
    wanted = node.output[len(states) :]
    for name, (pieces, axis, backwards) in zip(wanted, joined, strict=False):
        raised: list[str] = []
        for turn, piece in enumerate(pieces):
            raised.append(f"{_label(node)}/{turn}/raised/{name}")
            if scene.opset >= _AXES_ARE_INPUTS:
                axes = as_constant(branch, f"{raised[-1]}/axes", np.array([axis], np.int64))
                as_node(branch, "Unsqueeze", [piece, axes], raised[-1])
            else:
                as_node(branch, "Unsqueeze", [piece], raised[-1], axes=[axis])
        if name:
            as_node(branch, "Concat", raised[::-1] if backwards else raised, name, axis=axis)


def _turn(branch: Branch, body: Proto, label: str, operands: Sequence[str]) -> list[str]:
    """Append a copy of a body to the branch; returns what its outputs are called there.

    ONNX names are unique through all scopes that see each other, but two copies use the same
    names, so inner names get the label as prefix.
    """
    inner = [tensor.name for tensor in body.initializer]
    inner += [name for node in body.node for name in node.output if name]
    names = {name: f"{label}/{name}" for name in inner}
    names |= {str(value.name): name for value, name in zip(body.input, operands, strict=False)}
    branch.nodes.extend(renamed(node, names) for node in body.node)
    for tensor in body.initializer:
        copy = copied(tensor)
        copy.name = names[tensor.name]
        branch.constants.append(copy)
    return [names.get(str(value.name), str(value.name)) for value in body.output]


def goes_on(body: Proto, outer: Mapping[str, Proto]) -> bool:
    """Whether a loop's condition stays as it was, or is the constant true."""
    condition, previous = body.output[0].name, body.input[1].name
    makers = {output: node for node in body.node for output in node.output}
    constants = {**outer, **{tensor.name: tensor for tensor in body.initializer}}
    while condition in makers and makers[condition].op_type in ("Identity", "Cast"):
        condition = makers[condition].input[0]
    if condition in makers and makers[condition].op_type == "Constant":
        return _true(makers[condition].attribute[0].t)
    return condition == previous or (condition in constants and _true(constants[condition]))


def _body(node: Proto, name: str) -> Any:
    return next(attribute.g for attribute in node.attribute if attribute.name == name)


def _label(node: Proto) -> str:
    return next(str(name) for name in node.output if name)


def _true(tensor: Proto) -> bool:
    array = _array(tensor)
    return array.size == 1 and bool(array.item())


def _array(tensor: Proto) -> Any:
    import onnx

    return onnx.numpy_helper.to_array(tensor)


def as_constant(branch: Branch, name: str, value: Any) -> str:
    """Give the branch a constant; returns its name."""
    import onnx

    branch.constants.append(onnx.numpy_helper.from_array(value, name))
    return name


def as_node(
    branch: Branch, operator: str, operands: Sequence[str], name: str, **options: Any
) -> None:
    """Give the branch a node of one result."""
    import onnx

    branch.nodes.append(onnx.helper.make_node(operator, operands, [name], **options))


def _identity(branch: Branch, source: str, target: str) -> None:
    if target:
        as_node(branch, "Identity", [source], target)


def renamed(node: Proto, names: Mapping[str, str]) -> Proto:
    """A copy of a node, its subgraphs with it, with other names for some of its tensors."""
    copy = copied(node)
    _rename(copy, names)
    return copy


def _rename(node: Proto, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for inner in graph.node:
                _rename(inner, names)
            for value in graph.output:
                value.name = names.get(value.name, value.name)
