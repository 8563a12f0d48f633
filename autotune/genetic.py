"""A genetic algorithm over measured times (Goldberg, 1989): tournaments, crossover, mutation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from hybridc.autotune import _points
from hybridc.compiler.interfaces import Point, SearchTask, Space, Strategy, Trial


@dataclass(frozen=True)
class Genetic(Strategy):
    """Genetic algorithm: cross the winners of tournaments, and mutate their children.

    The population are the `population` fastest trials.  A parent is the fastest of `tournament`
    drawn from these; each knob of a child is redrawn with probability `mutation`.
    """

    population: int = 12
    tournament: int = 3
    mutation: float = 0.2

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        _points.at_least(self, "population", 2)
        _points.at_least(self, "tournament", 1)
        _points.share(self, "mutation")

    def candidates(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterable[Point]:
        """Points drawn evenly until a population is there, then children."""
        for _ in range(self.population - len(history)):
            yield _points.drawn(task.space, draw)
        alive = _points.ranked(_points.measured(history))[: self.population]
        while alive:
            first, second = (self._winner(alive, draw) for _ in range(2))
            yield self._mutated(task.space, _points.crossed(first, second, draw), draw)

    def _winner(self, alive: Sequence[Trial], draw: Random) -> Point:
        """The best of some; `alive` is sorted, so the least place wins."""
        return alive[min(draw.randrange(len(alive)) for _ in range(self.tournament))].point

    def _mutated(self, space: Space, point: Point, draw: Random) -> Point:
        return {
            knob: draw.choice(space[knob]) if draw.random() < self.mutation else value
            for knob, value in point.items()
        }
