"""Particle swarm optimisation over the places of knobs (Kennedy and Eberhart, ICNN 1995)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from hybridc.autotune import _points
from hybridc.compiler.interfaces import Point, SearchTask, Strategy, Trial

# Tries to find a point near a particle that was not tried, before the particle leaps.
_TRIES = 20


@dataclass(frozen=True)
class Pso(Strategy):
    """Particle swarm: move particles by their velocity, their own best and the swarm's best.

    Trials belong to the `particles` in turn, so positions and velocities follow from the history.
    The defaults of `inertia`, `own` and `swarm` are those of Clerc and Kennedy (2002).
    """

    particles: int = 8
    inertia: float = 0.73
    own: float = 1.5
    swarm: float = 1.5

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        _points.at_least(self, "particles", 1)
        _points.share(self, "inertia")
        _points.at_least(self, "own", 0)
        _points.at_least(self, "swarm", 0)

    def candidates(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterable[Point]:
        """The next place of each particle, in turn."""
        tried = {task.key(trial.point) for trial in history}
        best = _points.measured(_points.ranked(history)[:1])
        turn = len(history)
        while True:
            past = history[turn % self.particles :: self.particles]
            point = _points.drawn(task.space, draw)
            if past and best:
                point = self._moved(task, past, best[0].point, tried, draw) or point
            tried.add(task.key(point))
            yield point
            turn += 1

    def _moved(
        self,
        task: SearchTask,
        past: Sequence[Trial],
        best: Point,
        tried: set[tuple[int, ...]],
        draw: Random,
    ) -> Point | None:
        """A particle's next place, with more and more noise until it is a new one."""
        here = _points.places(task.space, past[-1].point)
        before = _points.places(task.space, past[-2 if len(past) > 1 else -1].point)
        own = _points.places(task.space, _points.ranked(past)[0].point)
        swarm = _points.places(task.space, best)
        for noise in range(_TRIES):
            wanted = [
                x
                + self.inertia * (x - last)
                + self.own * draw.random() * (mine - x)
                + self.swarm * draw.random() * (ours - x)
                + draw.gauss(0, 0.1 + 0.15 * noise)
                for x, last, mine, ours in zip(here, before, own, swarm, strict=True)
            ]
            point = _points.at(task.space, wanted)
            if task.key(point) not in tried:
                return point
        return None
