"""Fourier transforms of which a program reads a few bins, or whose operand is zero for the most.

Neural operators and long convolutions are such.  The rest is not computed: a transform is a product
with a matrix, of which some columns or rows are left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridc.compiler.frontends.aten import spectra
from hybridc.compiler.frontends.onnx.node import Expr, Scope
from hybridc.compiler.frontends.torch_import import known_zeros
from hybridc.compiler.frontends.torch_import.known_zeros import Node, Places, Reader


@dataclass(frozen=True)
class Part:
    """The places of a transform's operand that it is given, and those of its result to compute."""

    given: Places
    wanted: Places


class Spectra:
    """The transforms of a program that are computed in `parts`, and the slices of their results.

    A slice that is only sliced again has no elements but those that something reads.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        nodes = list(nodes)
        transforms = [node for node in nodes if known_zeros.name_of(node) in spectra.TRANSFORMS]
        self._known = known_zeros.supports(nodes) if transforms else {}
        self.parts: dict[Node, Part] = {}
        self._held: dict[Node, Places] = {}  # the places of a transform that it and slices hold
        for node in transforms:
            self._divide(node)

    def _divide(self, node: Node) -> None:
        operand = known_zeros.bound(node)["self"]
        if not known_zeros.is_static(node) or not known_zeros.is_static(operand):
            return
        wanted, shown = known_zeros.reads(node)
        every, whole = known_zeros.everywhere(operand), known_zeros.everywhere(node)
        support = self._known.get(operand, every)
        if not all(map(len, (*support, *wanted))):
            return
        given = _given(node, support, every, wanted)
        less = _count(given) < _count(every) or _count(wanted) < _count(whole)
        if not less or not all(map(len, given)):
            return
        self.parts[node] = Part(given, wanted)
        for each, places in shown.items():
            both = zip(places, wanted, strict=True)
            self._held[each] = tuple(np.intersect1d(*pair) for pair in both)

    def arguments(self, s: Scope, node: Node, env: Mapping[Node, Expr]) -> dict[str, Any]:
        """What a converter is given of a transform in part; nothing for other nodes."""
        if (part := self.parts.get(node)) is None:
            return {}
        operand = known_zeros.bound(node)["self"]
        return {
            "self": Reader(s, env, self._known).gathered(operand, part.given),
            spectra.GIVEN: part.given,
            spectra.WANTED: part.wanted,
        }

    def holds(self, node: Node) -> bool:
        """Whether a node is a transform that is computed in part, or a slice of one."""
        return node in self._held

    def part(self, s: Scope, node: Node, env: Mapping[Node, Expr]) -> Expr:
        """What a slice holds of such a result."""
        source = known_zeros.bound(node)["self"]
        return known_zeros.taken(s, env[source], self._held[source], self._held[node])


def _given(node: Node, support: Places, every: Places, wanted: Places) -> Places:
    """The places along each axis of an operand that a transform is given.

    Along axes that it leaves as they are these are the ones that are wanted.
    """
    arguments, found = known_zeros.bound(node), list(wanted)
    axes = [axis % len(every) for axis in arguments["dim"]]
    for axis in axes:
        part = spectra.is_partial(len(every[axis]), support[axis], wanted[axis])
        found[axis] = support[axis] if part else every[axis][: support[axis][-1] + 1]
    if "last_dim_size" in arguments:  # of half the bins, those of real numbers of that length
        half = arguments["last_dim_size"] // 2
        found[axes[-1]] = support[axes[-1]][support[axes[-1]] <= half]
    return tuple(found)


def _count(places: Places) -> int:
    return int(np.prod([len(each) for each in places]))
