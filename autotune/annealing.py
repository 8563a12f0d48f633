"""Simulated annealing over measured times, with restarts (Kirkpatrick et al., Science 1983)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, isfinite, log
from random import Random

from hybridc.autotune import _points
from hybridc.compiler.errors import PluginError
from hybridc.compiler.interfaces import Point, SearchTask, Strategy, Trial


@dataclass(frozen=True)
class Annealing(Strategy):
    """Simulated annealing: move between neighbours, to slower ones ever less often.

    A step that makes the kernel slower by a factor r is taken with probability r^(-1/t); the
    temperature t falls from `hot` to `cold` by the factor `cooling` with each trial.  When it is
    frozen, it restarts elsewhere.
    """

    hot: float = 0.3
    cold: float = 0.01
    cooling: float = 0.9

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        _points.at_least(self, "cold", 1e-9)
        _points.at_least(self, "hot", self.cold)
        _points.share(self, "cooling")
        if self.cooling == 0:
            raise PluginError("annealing: cooling must be positive, got 0")

    def candidates(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterable[Point]:
        """Neighbours of where the walk stands; after a restart, any points."""
        current = self._walk(history)
        return _points.endless(task, draw) if current is None else _around(task, current, draw)

    def _walk(self, history: Sequence[Trial]) -> Point | None:
        """Where the walk through the trials has come to; None if it begins anew."""
        current, heat = None, self.hot
        cost = inf
        for place, trial in enumerate(history):
            chance = Random(f"{self.seed}/{place}").random()
            if isfinite(trial.cost) and chance < _acceptance(trial.cost, cost, heat):
                current, cost = trial.point, trial.cost
            heat *= self.cooling
            if heat < self.cold:
                current, cost, heat = None, inf, self.hot
        return current


def _acceptance(new: float, old: float, heat: float) -> float:
    return 1.0 if new <= old else exp(log(old / new) / heat)


def _around(task: SearchTask, point: Point, draw: Random) -> Iterator[Point]:
    while True:
        yield _points.changed(task.space, point, draw, far=0.2)
