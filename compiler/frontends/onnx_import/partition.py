"""Which nodes of an ONNX graph go together into a region that ONNX Runtime computes.

A graph is cut into steps: nodes of ours, then a region, then nodes of ours again.  A node's step is
the number of regions that lie before it on any way, at least; so the nodes of a region with
the same step never depend on each other by way of ours, and there are as few regions as is possible
for the nodes that are in one.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.frontends.onnx_graph.model_file import Proto

# What is worth a round trip: these stay ours, and each may be fused with its neighbours.
HEAVY = frozenset(
    {
        "Attention",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "Einsum",
        "Gemm",
        "MatMul",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
    }
)
# Of a group of cheap nodes between two regions, as many at most go with them.
_ISLAND = 8

Reads = Callable[[Any], AbstractSet[str]]


@dataclass(frozen=True)
class Cut:
    """The nodes by their index, in an order in which they can be computed.

    `steps` are pairs: the nodes of ours, and those of the region that follows; the last of these
    is empty.
    """

    steps: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @property
    def regions(self) -> list[tuple[int, ...]]:
        """The nodes of each region."""
        return [region for _, region in self.steps if region]


def cut(nodes: Sequence[Proto], foreign: AbstractSet[int], reads: Reads) -> Cut:
    """Cut a graph whose nodes stand in order; `foreign` are those that cannot be ours.

    Cheap nodes between two regions join them where that makes fewer regions.
    """
    before = _predecessors(nodes, reads)
    plain = _cut(before, foreign)
    islands = _islands(nodes, before, foreign)
    if islands:
        joined = _cut(before, foreign | islands)
        if len(joined.regions) < len(plain.regions):
            return joined
    return plain


def _predecessors(nodes: Sequence[Proto], reads: Reads) -> list[list[int]]:
    maker: dict[str, int] = {}
    before: list[list[int]] = []
    for index, node in enumerate(nodes):
        before.append(sorted({maker[name] for name in reads(node) if name in maker}))
        maker.update({name: index for name in node.output if name})
    return before


def _cut(before: Sequence[Sequence[int]], foreign: AbstractSet[int]) -> Cut:
    steps: list[int] = []
    for index, previous in enumerate(before):
        if index in foreign:
            found = [steps[p] if p in foreign else steps[p] + 1 for p in previous]
            steps.append(max(found, default=1))
        else:
            steps.append(max((steps[p] for p in previous), default=0))
    ours: list[list[int]] = [[] for _ in range(max(steps, default=0) + 1)]
    theirs: list[list[int]] = [[] for _ in ours]
    for index, step in enumerate(steps):
        # Region n stands behind our nodes of step n - 1.
        (theirs[step - 1] if index in foreign else ours[step]).append(index)
    return Cut(tuple((tuple(a), tuple(b)) for a, b in zip(ours, theirs, strict=True)))


def _islands(
    nodes: Sequence[Proto], before: Sequence[Sequence[int]], foreign: AbstractSet[int]
) -> set[int]:
    """Cheap nodes on a way of cheap nodes from one foreign node to another."""
    behind: set[int] = set()
    for index, previous in enumerate(before):
        light = index not in foreign and nodes[index].op_type not in HEAVY
        if light and any(p in foreign or p in behind for p in previous):
            behind.add(index)
    ahead: set[int] = set()
    for index in reversed(range(len(nodes))):
        if index in foreign or index in ahead:
            ahead.update(p for p in before[index] if p in behind)
    return {index for group in _groups(ahead, before) if len(group) <= _ISLAND for index in group}


def _groups(members: AbstractSet[int], before: Sequence[Sequence[int]]) -> list[set[int]]:
    """The members that hang together."""
    group: dict[int, set[int]] = {}
    for index in sorted(members):
        joined = {index}
        for previous in before[index]:
            if previous in group:
                joined |= group[previous]
        for member in joined:
            group[member] = joined
    return list({id(found): found for found in group.values()}.values())
