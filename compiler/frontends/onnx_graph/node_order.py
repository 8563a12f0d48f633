"""The order in which the nodes of an ONNX graph can be computed."""

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

Proto = Any  # a message of onnx; the library ships no types for them


def put_in_order(graph: Proto) -> None:
    """Have each node follow those whose results it reads, in place; subgraphs stay as they are.

    ONNX demands that of a file; ONNX Runtime does it, so that tools that append nodes, such as its
    converter to float16, leave it out.  What stands in order stays, and so does a graph in which
    nodes wait for each other.
    """
    nodes = list(graph.node)
    order = _order(nodes)
    if order != list(range(len(nodes))) and len(order) == len(nodes):
        del graph.node[:]
        graph.node.extend(nodes[index] for index in order)


def _order(nodes: Sequence[Proto]) -> list[int]:
    """The indices of the nodes that can be computed; of those that could be next, the first is."""
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waiting: list[int] = []
    readers: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        before = {makers[name] for name in _read(node) if name in makers}
        waiting.append(len(before))
        for other in before:
            readers[other].append(index)
    ready = [index for index, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return order


def _read(node: Proto) -> Iterator[str]:
    """Every name that a node reads, also from within its subgraphs."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from _read(inner)
