"""Factorisation machine with annealing (Kitai et al., Phys. Rev. Research 2, 013319, 2020).

A factorisation machine (Rendle, ICDM 2010) of the one-hot knobs is a quadratic form of binary
variables: its least value is a QUBO, which annealing minimises.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from hybridc.autotune import _points
from hybridc.compiler.interfaces import Point, SearchTask, Strategy, Trial

Floats = NDArray[np.float64]

_STEPS, _RATE = 250, 0.05
# Replicas annealed side by side, enough that some end where nothing was tried yet, and sweeps over
# all knobs; temperatures in units of the spread of the logarithms of seconds.
_REPLICAS, _SWEEPS = 128, 50
_HOT, _COLD = 2.0, 0.02


@dataclass(frozen=True)
class Fmqa(Strategy):
    """Fit a factorisation machine, and anneal the QUBO that it defines.

    The first `startup` points are drawn uniformly; pairs of values interact through `rank` factors.
    """

    startup: int = 12
    rank: int = 6
    decay: float = 0.01

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        _points.at_least(self, "startup", 2)
        _points.at_least(self, "rank", 1)
        _points.at_least(self, "decay", 0)

    def candidates(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterable[Point]:
        """Points of least energy, and then changes of the fastest trials."""
        for _ in range(self.startup - len(history)):
            yield _points.drawn(task.space, draw)
        known = _points.measured(history)
        if len(known) > 1:
            random = np.random.default_rng(draw.randrange(2**32))
            yield from _annealed(task, *self._fit(task, known, random), random)
        best = _points.ranked(history)[:4] or [Trial(task.default)]
        while True:
            yield _points.changed(task.space, draw.choice(best).point, draw)

    def _fit(
        self, task: SearchTask, known: Sequence[Trial], random: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """The machine's linear terms `[d]` and its pair terms `[d, d]`."""
        x = _one_hot(task, [trial.point for trial in known])
        seconds = np.log([trial.cost for trial in known])
        y = (seconds - seconds.mean()) / (seconds.std() or 1.0)
        linear, factors = np.zeros(x.shape[1]), random.normal(0, 0.1, (x.shape[1], self.rank))
        steps = _Adam(linear), _Adam(factors)
        for _ in range(_STEPS):
            mixed = x @ factors
            predicted = x @ linear + 0.5 * ((mixed**2).sum(1) - (x @ factors**2).sum(1))
            error = (predicted - y) / len(y)
            slope = x.T @ error
            crossed = x.T @ (error[:, None] * mixed) - slope[:, None] * factors
            steps[0].descend(slope + self.decay * linear / len(y))
            steps[1].descend(crossed + self.decay * factors / len(y))
        return linear, factors @ factors.T


class _Adam:
    """Steps downhill, in place (Kingma and Ba, ICLR 2015)."""

    def __init__(self, values: Floats) -> None:
        self._values, self._step = values, 0
        self._mean, self._square = np.zeros_like(values), np.zeros_like(values)

    def descend(self, slope: Floats) -> None:
        """One step against `slope`."""
        self._step += 1
        self._mean += 0.1 * (slope - self._mean)
        self._square += 0.01 * (slope**2 - self._square)
        mean = self._mean / (1 - 0.9**self._step)
        square = self._square / (1 - 0.99**self._step)
        self._values -= _RATE * mean / (np.sqrt(square) + 1e-8)


def _annealed(
    task: SearchTask, field: Floats, coupling: Floats, random: np.random.Generator
) -> Iterator[Point]:
    """Points where replicas of the QUBO froze, the least energy first.

    A move exchanges the bit that is set of a knob for another of it, so that the penalty for
    knobs with no value or with two is never paid.
    """
    sizes = [len(values) for values in task.space.values()]
    starts = np.cumsum([0, *sizes[:-1]])
    coupling = coupling.copy()
    for start, size in zip(starts, sizes, strict=True):  # never set together
        coupling[start : start + size, start : start + size] = 0
    chosen = np.stack(
        [
            start + random.integers(size, size=_REPLICAS)
            for start, size in zip(starts, sizes, strict=True)
        ],
        axis=1,
    )
    local = field + coupling[chosen].sum(axis=1)
    replicas = np.arange(_REPLICAS)
    for heat in np.geomspace(_HOT, _COLD, _SWEEPS):
        for knob, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            wanted = start + random.integers(size, size=_REPLICAS)
            change = local[replicas, wanted] - local[replicas, chosen[:, knob]]
            chance = np.exp(-np.maximum(change, 0) / heat)
            taken = np.where(random.random(_REPLICAS) < chance, wanted, chosen[:, knob])
            local += coupling[taken] - coupling[chosen[:, knob]]
            chosen[:, knob] = taken
    energy = (field[chosen] + 0.5 * (local[replicas[:, None], chosen] - field[chosen])).sum(axis=1)
    for replica in np.argsort(energy, kind="stable"):
        yield _points.at(task.space, list(chosen[replica] - starts))


def _one_hot(task: SearchTask, points: Sequence[Point]) -> Floats:
    sizes = [len(values) for values in task.space.values()]
    starts = np.cumsum([0, *sizes[:-1]])
    encoded = np.zeros((len(points), sum(sizes)))
    for row, point in zip(encoded, points, strict=True):
        row[starts + np.asarray(_points.places(task.space, point))] = 1
    return encoded
