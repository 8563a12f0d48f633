"""What the body of a loop computes of the number of its turn."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph.branches import Scene, goes_on
from hybridc.compiler.frontends.onnx_graph.model_file import Proto

# They pass on one number, whatever its type of integers and however many axes it has.
_PASSING = ("Cast", "CastLike", "Identity", "Reshape", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Turns:
    """A loop of so many turns: the value that counts them from 0, and what each adds as a row.

    `scanned` tells that the loop puts rows out; else the state `sequence` collects them.
    """

    count: int
    turn: str
    row: str
    scanned: bool
    sequence: int = 0


def turns_of(node: Proto, scene: Scene) -> Turns | None:
    """The turns of a loop that has no other states; None for any other loop."""
    count, condition, *states = [*node.input, ""][: max(2, len(node.input))]
    body = _graph(node, "body")
    given, results = list(body.input), list(body.output)
    if condition and not _is_true(scene.constants.get(condition)):
        return None
    if not states and len(results) == 2 and count in scene.constants:
        trips = _number(scene.constants[count])
        if trips is None or not goes_on(body, scene.constants):
            return None
        return Turns(trips, str(given[0].name), str(results[1].name), scanned=True)
    if count or len(states) != 2 or len(results) != 3:
        return None
    return _counted(node, scene, states)


def _counted(node: Proto, scene: Scene, states: list[str]) -> Turns | None:
    """Turns that the body counts itself, up to a constant, beside a sequence."""
    graph = _graph(node, "body")
    for sequence, counter in ((0, 1), (1, 0)):
        turn = str(graph.input[2 + counter].name)
        body = Body(node, scene, turn)
        first, after = scene.constants.get(states[counter]), str(graph.output[1 + counter].name)
        made = scene.makers.get(states[sequence])
        grown = body.maker(str(graph.output[1 + sequence].name), "SequenceInsert")
        less = body.maker(str(graph.output[0].name), "Less")
        if made is None or made.op_type != "SequenceEmpty" or grown is None or less is None:
            continue
        most = body.number(less.input[1])
        before = body.plain(grown.input[0]) == graph.input[2 + sequence].name
        counts = first is not None and _number(first) == 0 and body.place(after) == 1
        if most is None or most < 1 or not before or len(grown.input) > 2 or not counts:
            continue
        if body.plain(less.input[0]) == body.plain(after):
            return Turns(most, turn, str(grown.input[1]), scanned=False, sequence=sequence)
    return None


class Body:
    """The nodes of a loop's body, those of its branches among them."""

    def __init__(self, node: Proto, scene: Scene, turn: str) -> None:
        graph = _graph(node, "body")
        self.scene, self.turn = scene, turn
        self._inner = {str(value.name) for value in graph.input}
        self._makers: dict[str, Proto] = {}
        self._constants: dict[str, Any] = {}
        for inner in _graphs(graph):
            self._constants |= {tensor.name: tensor for tensor in inner.initializer}
            self._makers |= {name: each for each in inner.node for name in each.output if name}
        for name, each in self._makers.items():
            if each.op_type == "Constant" and each.attribute[0].name == "value":
                self._constants[name] = each.attribute[0].t

    def plain(self, name: str) -> str:
        """The value that others stand for, of whatever type and axes."""
        while name in self._makers and self._makers[name].op_type in _PASSING:
            name = self._makers[name].input[0]
        return str(name)

    def maker(self, name: str, *kinds: str) -> Proto | None:
        """The node that makes a value, if it is of one of these kinds."""
        while name in self._makers and self._makers[name].op_type == "Identity":
            name = self._makers[name].input[0]
        node = self._makers.get(name)
        return node if node is not None and node.op_type in kinds else None

    def is_outer(self, name: str) -> bool:
        """Whether a value stands outside of the loop, and so is the same in every turn."""
        return not {name} & (self._makers.keys() | self._inner | self._constants.keys())

    def constant(self, name: str) -> Any:
        """A value that is known, as an array; else None."""
        while name in self._makers and self._makers[name].op_type == "Identity":
            name = self._makers[name].input[0]
        tensor = self._constants.get(name, self.scene.constants.get(name))
        return None if tensor is None else _array(tensor)

    def number(self, name: str) -> int | None:
        """An integer that is known; else None."""
        array = self.constant(self.plain(name))
        if array is None or array.size != 1 or array.dtype.kind not in "iu":
            return None
        return int(array.item())

    def place(self, name: str) -> int | None:
        """By how much a value is more than the number of the turn; None for another value."""
        name = self.plain(name)
        if name == self.turn:
            return 0
        node = self._makers.get(name)
        if node is None or node.op_type != "Add":
            return None
        for one, other in (node.input, node.input[::-1]):
            at, more = self.place(one), self.number(other)
            if at is not None and more is not None:
                return at + more
        return None

    def element(self, name: str) -> tuple[str, int] | None:
        """The outer list whose element a value is, and by how much its place is past the turn's."""
        node = self._makers.get(self.plain(name))
        if node is None or not self.is_outer(node.input[0]):
            return None
        at = self.place(node.input[1]) if len(node.input) > 1 else None
        if at is None:
            return None
        if node.op_type == "Gather" and not _options(node).get("axis", 0):
            return str(node.input[0]), at
        if node.op_type == "Slice" and self.is_of_first_axis(node):
            return (str(node.input[0]), at) if self.place(node.input[2]) == at + 1 else None
        return None

    def is_of_first_axis(self, node: Proto) -> bool:
        """Whether a Slice is of every element of its operand's first axis between two places."""
        axes, steps = [*node.input[3:], "", ""][:2]
        return (
            len(node.input) > 2
            and (not axes or self.number(axes) == 0)
            and (not steps or self.number(steps) == 1)
        )

    def axes(self, node: Proto) -> list[int] | None:
        """The axes that an operator names, by its second operand or an attribute."""
        if len(node.input) > 1:
            array = self.constant(node.input[1])
            return None if array is None else [int(axis) for axis in np.ravel(array)]
        return _options(node).get("axes")

    def branches(self, node: Proto) -> tuple[str, str]:
        """What the two branches of an If compute."""
        then, other = (_graph(node, f"{which}_branch").output[0] for which in ("then", "else"))
        return str(then.name), str(other.name)


def label(node: Proto) -> str:
    """A name for what takes a node's place."""
    return next(str(name) for name in node.output if name)


def _options(node: Proto) -> dict[str, Any]:
    import onnx

    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def _graph(node: Proto, name: str) -> Any:
    return next(attribute.g for attribute in node.attribute if attribute.name == name)


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _array(tensor: Proto) -> Any:
    import onnx

    return onnx.numpy_helper.to_array(tensor)


def _number(tensor: Proto) -> int | None:
    array = _array(tensor)
    return int(array.item()) if array.size == 1 and array.dtype.kind in "iu" else None


def _is_true(tensor: Proto | None) -> bool:
    return tensor is not None and bool(_array(tensor).all())
