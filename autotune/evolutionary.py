"""Evolution under a predictor: what it likes best of many descendants of the best points is tried.

The search that Ansor and MetaSchedule made usual (Zheng et al., OSDI 2020; Shao et al., NeurIPS
2022), over points instead of traces.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from hybridc.autotune import _points
from hybridc.compiler.interfaces import Point, SearchTask, Strategy, Trial


@dataclass(frozen=True)
class Evolutionary(Strategy):
    """Evolve the best points, and try the descendants that are predicted to be fastest.

    Each proposal evolves `population` points for `generations`.  If the space has at most
    `population` times `generations` points, all of them are predicted instead.  The share
    `explore` of the proposed points is drawn uniformly; by default none, since mutations, and a
    predictor that knows its uncertainty, explore enough.  Without a predictor, descendants of the
    best trials are tried as they come.
    """

    population: int = 128
    generations: int = 4
    explore: float = 0.0

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        _points.at_least(self, "population", 2)
        _points.at_least(self, "generations", 1)
        _points.share(self, "explore")

    def candidates(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterable[Point]:
        """The predicted best, with some drawn evenly between them."""
        descendants = self._predicted(task, history, draw)
        for point in descendants:
            while draw.random() < self.explore:
                yield _points.drawn(task.space, draw)
            yield point

    def _predicted(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterator[Point]:
        if task.score is None:
            yield from _descendants(task, _elite(task, history), draw)
        elif task.size <= self.population * self.generations:
            yield from _sorted(task, list(task.shuffled(draw)))
        else:
            yield from self._evolved(task, history, draw)

    def _evolved(self, task: SearchTask, history: Sequence[Trial], draw: Random) -> list[Point]:
        """Every point that lived in some generation, the predicted fastest first."""
        living = [*_elite(task, history), *task.hints]
        pool = {task.key(point): point for point in living}
        while len(living) < self.population:
            living.append(_points.drawn(task.space, draw))
        for _ in range(self.generations):
            pool.update({task.key(point): point for point in living})
            best = _sorted(task, list(pool.values()))[: self.population // 2]
            source = _descendants(task, best, draw)
            living = [next(source) for _ in range(self.population)]
        pool.update({task.key(point): point for point in living})
        return _sorted(task, list(pool.values()))


def _elite(task: SearchTask, history: Sequence[Trial]) -> list[Point]:
    """The fastest fifth of the trials, four at least; the default where there are none."""
    best = _points.ranked(_points.measured(history))
    return [trial.point for trial in best[: max(4, len(best) // 5)]] or [task.default]


def _descendants(task: SearchTask, parents: Sequence[Point], draw: Random) -> Iterator[Point]:
    """Children of parents, of which those ahead have more; half of them have two."""
    weights = [1 / (place + 1) for place in range(len(parents))]
    while True:
        first, second = draw.choices(parents, weights, k=2)
        child = _points.crossed(first, second, draw) if draw.random() < 0.5 else first
        yield _points.changed(task.space, child, draw)


def _sorted(task: SearchTask, points: Sequence[Point]) -> list[Point]:
    assert task.score is not None
    scores = task.score(points)
    return [points[i] for i in sorted(range(len(points)), key=lambda i: scores[i])]
