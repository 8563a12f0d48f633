"""Make an ONNX model small while it still fails: delta debugging over nodes, then over sizes.

Whatever is tried is a valid model: values that lost their node become inputs of the type that
shape inference found, and values that lost their readers become outputs.  The method is ddmin
(Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002).
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hybridc.compiler.debugging.reduction_graph import (
    Types,
    bypassed,
    resized,
    restricted,
    sizes,
    types_of,
)
from hybridc.compiler.errors import InputError
from hybridc.compiler.frontends.onnx_graph.model_file import Proto

Fails = Callable[[Proto], bool]
Tell = Callable[[str], None]


@dataclass
class Budget:
    """What a reduction may take: runs of the command, and seconds."""

    steps: int = 2000
    seconds: float = float("inf")
    used: int = 0
    _start: float = field(default_factory=time.monotonic)

    def left(self) -> bool:
        """Whether one more run is allowed."""
        return self.used < self.steps and time.monotonic() - self._start < self.seconds


@dataclass
class Reduction:
    """The smallest model so far that fails; `run` makes it smaller until nothing helps.

    `best` is there at any time, so an interrupt loses nothing.  Raises InputError if the model
    does not fail to begin with.
    """

    best: Proto
    fails: Fails
    tell: Tell
    budget: Budget = field(default_factory=Budget)
    _seen: set[bytes] = field(default_factory=set[bytes])

    def run(self) -> Proto:
        """Reduce until a round changes nothing, or the budget is spent."""
        self.budget.used += 1
        if not self.fails(self.best):
            raise InputError("the command succeeds on the model: there is nothing to reduce")
        while self._nodes() | self._bypasses() | self._sizes():
            if not self.budget.left():
                break
        return self.best

    def _accept(self, candidate: Proto | None) -> bool:
        """Run the command on a model that is valid and new; keep it if it fails."""
        if candidate is None or not self.budget.left():
            return False
        content = candidate.SerializeToString(deterministic=True)
        if content in self._seen:
            return False
        self._seen.add(content)
        self.budget.used += 1
        failing = self.fails(candidate)
        if failing:
            self.best = candidate
        count = len(self.best.graph.node)
        self.tell(f"run {self.budget.used}: {count} node{'s' * (count != 1)} left")
        return failing

    def _nodes(self) -> bool:
        """Leave out nodes: halves first, then ever smaller parts, down to single ones."""
        changed, parts = False, 2
        while (count := len(self.best.graph.node)) > 1 and self.budget.left():
            types = types_of(self.best)
            if self._smaller(count, min(parts, count), types):
                changed, parts = True, max(2, parts - 1)
            elif parts >= count:
                break
            else:
                parts *= 2
        return changed

    def _smaller(self, count: int, parts: int, types: Types) -> bool:
        """Try each part alone, then all but each."""
        chunks = list(_chunks(count, parts))
        rest = [[i for i in range(count) if i not in set(chunk)] for chunk in chunks]
        return any(
            self._accept(restricted(self.best, chosen, types)) for chosen in [*chunks, *rest]
        )

    def _bypasses(self) -> bool:
        """Leave out a node from within a chain."""
        changed, index = False, 0
        while index < len(self.best.graph.node) and self.budget.left():
            options = bypassed(self.best, index, types_of(self.best))
            if any(self._accept(candidate) for candidate in options):
                changed = True
            else:
                index += 1
        return changed

    def _sizes(self) -> bool:
        """Make sizes of the inputs smaller, wherever they stand, as far as shapes still fit."""
        changed = False
        for size in sorted(sizes(self.best), reverse=True):
            for smaller in dict.fromkeys([1, 2, 3, size // 4, size // 2]):
                if 0 < smaller < size and self._accept(resized(self.best, size, smaller)):
                    changed = True
                    break
        return changed


def _chunks(count: int, parts: int) -> Iterator[Sequence[int]]:
    """Cut `count` places into so many runs of about the same length."""
    edges = [count * part // parts for part in range(parts + 1)]
    for low, high in itertools.pairwise(edges):
        yield range(low, high)


def load(source: Any) -> Proto:
    """Read and check a model whole, with its weights.  Raises ModelError if it is none."""
    import onnx

    from hybridc.compiler.frontends.onnx_graph import model_file

    model_file.read(source)
    proto = onnx.load(str(source))
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)
