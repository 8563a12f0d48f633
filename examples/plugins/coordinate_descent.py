"""Search a space by coordinate descent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from hybridc.compiler.interfaces import Point, SearchTask, Strategy, Trial


@dataclass(frozen=True)
class CoordinateDescent(Strategy):
    """Change one knob of the best point at a time, to the nearest values first."""

    def candidates(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterable[Point]:
        """The neighbours of the best point so far, knob by knob."""
        best = min(history, key=lambda trial: trial.cost, default=Trial(task.default)).point
        for knob, values in task.space.items():
            place = values.index(best[knob])
            nearest = sorted(range(len(values)), key=lambda other: abs(other - place))
            yield from ({**best, knob: values[other]} for other in nearest)
