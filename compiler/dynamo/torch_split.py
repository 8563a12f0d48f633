"""Graphs in parts: what torch alone computes runs eagerly, and what lies between is compiled.

Such are operators that draw random numbers, those of other libraries, and loops.  They run in the
order of the graph, so that numbers are drawn as in eager execution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hybridc.compiler.dynamo import torch_attention
from hybridc.compiler.dynamo.torch_region import Region, without_autocast
from hybridc.compiler.dynamo.torch_sources import is_write, result_of, viewed
from hybridc.compiler.errors import ModelError

Node = Any  # torch.fx.Node

# Each part takes a compilation.
_MOST_PARTS = 64
_KNOWN_LIBRARIES = frozenset({"aten", "prim", "prims", "quantized_decomposed"})
# Operators with graphs of their own that are compiled, or refused with a better reason.
_KNOWN_GRAPHS = ("cond", "flex_attention", "invoke_subgraph", "with_effects")


@dataclass
class Part:
    """Some nodes of a graph as a graph of their own, which `run` computes."""

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    graph: Any
    run: Callable[[list[Any]], Sequence[Any]]
    dead: list[Node] = field(default_factory=list[Any])  # what no later part reads


class Split:
    """A graph in parts, to be called as a region is; a part that is refused runs eagerly.

    Raises ModelError for a graph of too many parts.
    """

    _boxed_call = True

    def __init__(
        self, graph: Any, region: Callable[[Any], Region], told: Callable[[str], object]
    ) -> None:
        self._told, self._regions = told, dict[int, Region]()
        self._inputs = graph.graph.find_nodes(op="placeholder")
        self._outputs = result_of(graph).args[0]
        self._parts: list[Part] = []
        numbers = _numbers(graph)
        if len(set(numbers.values())) > _MOST_PARTS:
            raise ModelError(f"it would be compiled in more than {_MOST_PARTS} parts")
        for number in sorted(set(numbers.values())):
            part = _part(graph, {node for node, n in numbers.items() if n == number})
            if number % 2 == 0:
                self._regions[len(self._parts)] = part.run = region(part.graph)
            self._parts.append(part)
        self._constants = {
            node: getattr(graph, node.target) for node in graph.graph.find_nodes(op="get_attr")
        }
        self._bury()

    def _bury(self) -> None:
        """Let each part forget what nothing behind it reads."""
        read = {node for node in self._outputs if hasattr(node, "op")}
        for part in reversed(self._parts):
            known = {*part.inputs, *part.outputs}
            part.dead = list(known - read)
            read |= known

    def __call__(self, args: list[Any]) -> list[Any]:
        """The outputs; `args` is emptied, so that its tensors may be freed."""
        values: dict[Any, Any] = {**self._constants, **dict(zip(self._inputs, args, strict=True))}
        args.clear()
        for part in self._parts:
            results = part.run([values[node] for node in part.inputs])
            values.update(zip(part.outputs, results, strict=True))
            for node in part.dead:
                del values[node]
        return [values[node] if hasattr(node, "op") else node for node in self._outputs]

    @property
    def waits(self) -> bool:
        """Whether the last call found no code for a part."""
        return any(region.waits for region in self._regions.values())

    def compile(self) -> None:
        """Make code for the parts that had none."""
        for place, region in list(self._regions.items()):
            if region.waits:
                try:
                    region.compile()
                except Exception as error:  # importers raise anything
                    del self._regions[place]
                    self._parts[place].run = _eagerly(self._parts[place].graph)
                    self._told(str(error))


def reason(graph: Any) -> str | None:
    """Why a graph is split: the first operator that torch alone computes; None if there is none."""
    found = (_foreign(node) for node in graph.graph.nodes)
    return next((why for why in found if why), None)


def _foreign(node: Node) -> str:
    """Why torch alone computes a node, or nothing."""
    import torch

    target = node.target
    if node.op != "call_function" or torch_attention.portable(node) is not None:
        return ""
    if isinstance(target, torch._ops.HigherOrderOperator):  # pyright: ignore[reportPrivateUsage]
        known = any(target.name().startswith(name) for name in _KNOWN_GRAPHS)
        return "" if known else f"operator {target.name()!r} is not supported"
    if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
        return f"operator {str(target)!r} draws random numbers"
    library = getattr(target, "namespace", "aten")
    if library in _KNOWN_LIBRARIES or not hasattr(target, "_schema") or _is_known(target):
        return ""
    return f"operator {str(target)!r} is not supported"


def _is_known(target: Any) -> bool:
    """Whether an operator of another library can be imported."""
    from hybridc.compiler.frontends.torch_import import decompositions
    from hybridc.compiler.frontends.torch_import.quiet import quiet

    with quiet():
        return decompositions.is_of_known_library(target)


def _numbers(graph: Any) -> dict[Node, int]:
    """The part of each node: even numbers are compiled, odd ones run eagerly, in this order.

    Each comes as early as what it reads allows, but that numbers are drawn in their order, and that
    all has been read that is written to.
    """
    numbers: dict[Node, int] = {}
    drawn = 1
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        read = [*node.all_input_nodes]
        if is_write(node):
            read += list(node.args[0].users)
        first = max((numbers.get(each, 0) for each in read), default=0)
        if _foreign(node):
            drawn = numbers[node] = max(first + (first + 1) % 2, drawn)
        else:
            shows = viewed(node) is not None or not hasattr(node.target, "_schema")
            numbers[node] = first if shows else first + first % 2
    return numbers


def _part(graph: Any, nodes: set[Node]) -> Part:
    """A graph of some nodes; it runs eagerly at first."""
    import torch

    made, values = torch.fx.Graph(), dict[Node, Node]()
    ordered = [node for node in graph.graph.nodes if node in nodes]
    outside = dict.fromkeys(x for n in ordered for x in n.all_input_nodes if x not in nodes)
    inputs = tuple(node for node in outside if node.op != "get_attr")
    for node in inputs:
        values[node] = made.placeholder(node.name)
        values[node].meta = dict(node.meta)
    for node in (*(node for node in outside if node.op == "get_attr"), *ordered):
        values[node] = made.node_copy(node, values.__getitem__)
    outputs = tuple(n for n in ordered if any(user not in nodes for user in n.users))
    made.output(tuple(values[node] for node in outputs))
    part = torch.fx.GraphModule(graph, made)
    return Part(inputs, outputs, part, _eagerly(part))


def _eagerly(graph: Any) -> Callable[[list[Any]], Sequence[Any]]:
    def run(args: list[Any]) -> Sequence[Any]:
        with without_autocast():
            results: Sequence[Any] = graph(*args)
        return results

    return run
