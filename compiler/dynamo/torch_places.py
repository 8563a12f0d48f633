"""Writes at one place that a tensor of no axes tells, as writes at a list of one place.

`cache[:, place] = row` asks such a tensor for its number, which AOTAutograd cannot trace.
"""

import copy
import operator
from collections.abc import Sequence
from typing import Any

Node = Any  # torch.fx.Node


def listed(graph: Any) -> Any:
    """The graph with such writes as those that indices make; itself where there are none."""
    import torch

    if not any(_axis(node) is not None for node in _writes(graph.graph)):
        return graph
    copied = copy.deepcopy(graph.graph)  # of nodes alone; tensors stay the ones they are
    for before, node in zip(_writes(graph.graph), _writes(copied), strict=True):
        if (axis := _axis(before)) is not None:
            _spread(node, axis, _axes_behind(before, axis), _rank(before.args[2]))
    return torch.fx.GraphModule(graph, copied)


def _writes(graph: Any) -> Sequence[Node]:
    found: Sequence[Node] = graph.find_nodes(op="call_function", target=operator.setitem)
    return found


def _spread(node: Node, axis: int, behind: int, rank: int) -> None:
    """Give the index its axis, and the value one where it has the axes before."""
    target, index, value = node.args
    with node.graph.inserting_before(node):
        place = next(x for x in _entries(index) if _is_node(x))
        one = node.graph.call_method("reshape", (place, 1))
        if rank > behind:
            value = node.graph.call_method("unsqueeze", (value, rank - behind))
    entries = tuple(one if _is_node(x) else x for x in _entries(index))
    node.args = (target, entries, value)


def _axis(node: Node) -> int | None:
    """The axis along which one number is the only tensor among the indices; None for others."""
    target, index, value = node.args
    entries = _entries(index)
    tensors = [x for x in entries if _is_node(x)]
    if len(tensors) != 1 or not _is_number(tensors[0]) or _rank(target) < 0 or _rank(value) < 0:
        return None
    if not all(_is_node(x) or isinstance(x, int | slice) or x is ... for x in entries):
        return None
    if any(isinstance(x, bool) for x in entries) or any(_is_node(y) for y in _bounds(entries)):
        return None
    at = entries.index(tensors[0])
    if ... in entries[:at]:
        return _rank(target) - (len(entries) - at)
    return at


def _axes_behind(node: Node, axis: int) -> int:
    """How many axes of what is written to lie behind an axis."""
    target, index, _ = node.args
    entries = _entries(index)
    at = next(i for i, x in enumerate(entries) if _is_node(x))
    return _rank(target) - axis - 1 - sum(isinstance(x, int) for x in entries[at + 1 :])


def _entries(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _bounds(entries: Sequence[Any]) -> list[Any]:
    return [y for x in entries if isinstance(x, slice) for y in (x.start, x.stop, x.step)]


def _is_node(value: Any) -> bool:
    return hasattr(value, "op")


def _is_number(node: Node) -> bool:
    """Whether a node is a tensor of one whole number."""
    import torch

    value = node.meta.get("example_value")
    kinds = (torch.int64, torch.int32, torch.int16, torch.int8)
    return isinstance(value, torch.Tensor) and value.ndim == 0 and value.dtype in kinds


def _rank(value: Any) -> int:
    """The axes of a tensor; none of a number, and -1 where that is not known."""
    if not _is_node(value):
        return 0 if isinstance(value, int | float) else -1
    return int(getattr(value.meta.get("example_value"), "ndim", -1))
