"""The operator Gradient, written out: the graph behind it, differentiated in reverse."""

from collections.abc import Mapping, Sequence

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph.branches import renamed
from hybridc.compiler.frontends.onnx_graph.gradient_rules import RULES
from hybridc.compiler.frontends.onnx_graph.gradient_tape import Tape
from hybridc.compiler.frontends.onnx_graph.model_file import Proto


def gradient(tape: Tape) -> list[Proto]:
    """The nodes that compute the derivatives of `y` by each of `xs` where the node's inputs say.

    The node names the tensors that `y` is a function of, `xs` and `zs`; its inputs are values for
    them, which may be others than in the graph.  Raises ModelError where no rule goes through an
    operator on the way, and for sizes that are not known.
    """
    xs, zs = (_names(tape, key) for key in ("xs", "zs"))
    target = str(tape.attribute("y", ""))
    free = [*xs, *zs]
    path = _path(tape.graph.node, free, target)
    if inner := [n for n in path if any(a.HasField("g") or a.graphs for a in n.attribute)]:
        raise ModelError(f"a gradient through {inner[0].op_type!r} is not supported")
    values = dict(zip(free, map(str, tape.node.input), strict=False))
    if any(name != value for name, value in values.items()):
        path, values = _copied(tape, path, values)
    else:
        values = {name: name for name in free}
    at = values.get(target, target)
    found = {at: tape.full(at, 1.0)}
    tape.active = _active(path, {values[name] for name in xs})
    for node in reversed(path):
        _back(tape, node, found)
    for name, output in zip(xs, tape.node.output, strict=False):
        if output:
            known = found.get(values[name]) or tape.full(values[name], 0.0)
            tape.emit("Identity", [known], output)
    return tape.nodes


def _back(tape: Tape, node: Proto, found: dict[str, str]) -> None:
    """Add what a node's inputs contribute, from the gradient of its output."""
    upstream, *others = (found.get(name) for name in node.output)
    if (upstream is None and not any(others)) or tape.active.isdisjoint(node.input):
        return
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None or upstream is None or any(others):
        raise ModelError(
            f"a gradient through {node.op_type!r} is not supported; known: {', '.join(RULES)}"
        )
    for name, part in zip(node.input, rule(tape, node, upstream), strict=False):
        if part and name in tape.active:
            found[name] = tape("Add", found[name], part) if name in found else part


def _path(nodes: Sequence[Proto], free: Sequence[str], target: str) -> list[Proto]:
    """The nodes that compute the target from the free tensors, in order."""
    needed, path = {target} - set(free), list[Proto]()
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            path.append(node)
            needed.update({name for name in node.input if name}.difference(free))
    return path[::-1]


def _copied(
    tape: Tape, path: Sequence[Proto], values: Mapping[str, str]
) -> tuple[list[Proto], dict[str, str]]:
    """The same computation on other values, which becomes part of the graph."""
    names = dict(values)
    for node in path:
        names |= {name: f"{tape.prefix}/at/{name}" for name in node.output if name}
    copies = [renamed(node, names) for node in path]
    tape.nodes.extend(copies)
    tape.types.update({new: tape.types[old] for old, new in names.items() if old in tape.types})
    return copies, names


def _active(path: Sequence[Proto], free: set[str]) -> set[str]:
    """What depends on the free tensors, which it is derived by."""
    found = set(free)
    for node in path:
        if not found.isdisjoint(node.input):
            found.update(name for name in node.output if name)
    return found


def _names(tape: Tape, key: str) -> list[str]:
    return [name.decode() for name in tape.attribute(key, [])]
