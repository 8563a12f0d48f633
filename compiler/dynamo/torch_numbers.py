"""Numbers that Dynamo passes as tensors of one element, of which the graph reads the value.

Where a number of Python's may vary, the learning rate of a step or, with `dynamic=True`, the
epsilon of a norm, Dynamo makes it a tensor, and the graph begins with its `item()`.  Such a graph
cannot be traced by AOTAutograd.  Code is made for the number, as it is for sizes.
"""

import copy
from collections.abc import Mapping
from typing import Any

Number = bool | int | float


def places(graph: Any) -> tuple[int, ...]:
    """Which of the graph's arguments are read as numbers, and as nothing else."""
    inputs = graph.graph.find_nodes(op="placeholder")
    return tuple(place for place, node in enumerate(inputs) if _is_number(node))


def _is_number(node: Any) -> bool:
    return bool(node.users) and all(_reads(user) for user in node.users)


def _reads(node: Any) -> bool:
    return bool(node.op == "call_method" and node.target == "item" and len(node.args) == 1)


def fixed(graph: Any, numbers: Mapping[int, Number]) -> Any:
    """The graph with constants for these of its arguments, which it takes as before."""
    import torch

    if not numbers:
        return graph
    copied = copy.deepcopy(graph.graph)  # of nodes alone; tensors stay the ones they are
    for place, node in enumerate(copied.find_nodes(op="placeholder")):
        if place in numbers:
            for read in list(node.users):
                _replace(read, numbers[place])
    return torch.fx.GraphModule(graph, copied)


def _replace(node: Any, number: Number) -> None:
    import torch

    def given(other: Any) -> Any:
        return number if other is node else other

    for user in list(node.users):
        user.args = torch.fx.map_arg(user.args, given)
        user.kwargs = torch.fx.map_arg(user.kwargs, given)
    node.graph.erase_node(node)
