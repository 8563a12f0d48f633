"""Points drawn evenly from the space: the baseline that every other strategy has to beat."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random as Draw

from hybridc.autotune import _points
from hybridc.compiler.interfaces import Point, SearchTask, Strategy, Trial


@dataclass(frozen=True)
class Random(Strategy):
    """Try points drawn uniformly from the space."""

    def candidates(self, task: SearchTask, history: Sequence[Trial], draw: Draw) -> Iterable[Point]:
        """Points drawn evenly; what was measured does not matter."""
        return _points.endless(task, draw)
