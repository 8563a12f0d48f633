"""CMA-ES with margin for integers (Hamano et al., GECCO 2022), as cmaes implements it."""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from hybridc.autotune import _points
from hybridc.autotune._optuna import Stored, costs
from hybridc.compiler.errors import PluginError
from hybridc.compiler.interfaces import Point, SearchTask, Trial

# The standard deviation at first, as a share of each knob's range.
_SPREAD = 1 / 6


@dataclass(frozen=True)
class CmaEs(Stored):
    """Adapt the mean and covariance of a normal distribution to the fast points (CMA-ES).

    It starts in the middle of the space; a generation has `population` points.  Spaces with a
    single knob, which CMA-ES does not support, are sampled uniformly.
    """

    population: int = 8

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        super().__post_init__()
        _points.at_least(self, "population", 5)
        if importlib.util.find_spec("cmaes") is None:
            raise PluginError("cma-es needs cmaes: pip install 'hybridc[tune]'")

    def asked(self, task: SearchTask, history: Sequence[Trial], draw: Random) -> Iterator[Point]:
        """Draws from the distribution after the generations of the history."""
        free = _points.free(task.space)
        if len(free) < 2:
            yield from _points.endless(task, draw)
        optimizer = self._adapted(task, history, draw.randrange(2**31))
        last = [len(task.space[knob]) - 1 for knob in free]
        while True:
            shares, _ = optimizer.ask()
            places = np.rint(shares * last).astype(int)
            chosen = dict(zip(free, places, strict=True))
            yield {knob: values[chosen.get(knob, 0)] for knob, values in task.space.items()}

    def _adapted(self, task: SearchTask, history: Sequence[Trial], seed: int) -> Any:
        """The distribution that was told each full generation; a knob's range is 0 to 1."""
        import cmaes

        free = _points.free(task.space)
        last = np.asarray([len(task.space[knob]) - 1 for knob in free], np.float64)
        optimizer = cmaes.CMAwM(
            mean=np.full(len(free), 0.5),
            sigma=_SPREAD,
            bounds=np.tile([0.0, 1.0], (len(free), 1)),
            steps=1 / last,
            seed=seed,
            population_size=self.population,
        )
        solutions = [
            (np.asarray([task.space[knob].index(trial.point[knob]) for knob in free]) / last, cost)
            for trial, cost in zip(history, costs(history), strict=True)
        ]
        for first in range(0, len(solutions) - self.population + 1, self.population):
            optimizer.tell(solutions[first : first + self.population])
        return optimizer
