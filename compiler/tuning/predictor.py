"""What is expected of points before they are measured: analysis first, then what was learned."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from hybridc.compiler.interfaces import Point, Trial
from hybridc.compiler.tuning.features import Key, Matrix
from hybridc.compiler.tuning.kernel import Kernel

if TYPE_CHECKING:
    from hybridc.compiler.tuning.cost_model import CostModel

Score = Callable[[Sequence[Point]], Sequence[float]]
Look = Callable[[Sequence[Point]], Matrix | None]

# Points whose loop nests are looked at in one call; each takes tens of milliseconds.  Which ones,
# the rule's own model says, where it has one.
_SHORT = 32
_TREES = 60  # of a model that one kernel's trials teach


@dataclass
class Predictor:
    """Ranks the points of one kernel; the lower the score, the faster.

    Features of points are asked for, not made here: what a rule makes of a point may crash or hang.
    Once they are refused, analysis alone goes on.
    """

    kernel: Kernel
    _estimates: dict[Key, float] = field(default_factory=dict[Key, float])
    _rows: dict[Key, Matrix] = field(default_factory=dict[Key, Matrix])
    _refused: bool = False

    def estimate(self, point: Point) -> float | None:
        """Seconds of one call by the rule's analytic model, if it has one."""
        cycles = self.kernel.rule.estimate(self.kernel.match, point)
        return cycles / self.kernel.target.machine.hertz if cycles else None

    def score(self, history: Sequence[Trial], features: Look) -> Score | None:
        """How to rank points after these trials; None where nothing is known."""
        model = self._model(history, features)
        if model is None:
            return self._analytic if self._estimated else None

        def ranked(points: Sequence[Point]) -> list[float]:
            first = sorted(range(len(points)), key=lambda i: self._rank(points[i]))
            short = first[:_SHORT]
            rows = self._features([points[i] for i in short], features)
            if rows is None:
                return self._analytic(points)
            learned = dict(zip(short, map(float, model.predict(rows)), strict=True))
            last = max(learned.values(), default=0.0)
            rest = {index: last + 1.0 + place for place, index in enumerate(first[_SHORT:])}
            return [(learned | rest)[i] for i in range(len(points))]

        return ranked

    def _model(self, history: Sequence[Trial], features: Look) -> "CostModel | None":
        """The model of the package as far as it knows such kernels, taught by the trials."""
        if importlib.util.find_spec("xgboost") is None:
            return None
        from hybridc.compiler.tuning import cost_model

        base = cost_model.load() if cost_model.PRETRAINED.exists() else None
        good = [trial for trial in history if trial.seconds is not None]
        if base is None and len(good) < cost_model.FEWEST:
            return None
        rows = self._features([self._default, *(trial.point for trial in good)], features)
        if rows is None:
            return None
        if base and not base.knows(rows[:1]):
            base = None
        if len(good) < cost_model.FEWEST:
            return base
        seconds = np.asarray([trial.seconds for trial in good], np.float64)
        group = cost_model.Group(rows[1:], seconds)
        return base.tuned(group) if base else cost_model.train([group], _TREES)

    def _features(self, points: Sequence[Point], features: Look) -> Matrix | None:
        """A row for each point; None, from then on, where one of them cannot be looked at."""
        new = {_key(point): point for point in points if _key(point) not in self._rows}
        if new and not self._refused:
            rows = features(list(new.values()))
            self._refused = rows is None
            if rows is not None:
                self._rows.update(zip(new, rows, strict=True))
        if self._refused or not points:
            return None
        return np.stack([self._rows[_key(point)] for point in points])

    def _analytic(self, points: Sequence[Point]) -> list[float]:
        return [self._rank(point) for point in points]

    def _rank(self, point: Point) -> float:
        key = _key(point)
        if key not in self._estimates:
            seconds = self.estimate(point)
            self._estimates[key] = inf if seconds is None else seconds
        return self._estimates[key]

    @cached_property
    def _default(self) -> Point:
        return self.kernel.rule.default(self.kernel.match, self.kernel.target)

    @cached_property
    def _estimated(self) -> bool:
        return self.estimate(self._default) is not None


def _key(point: Point) -> Key:
    return tuple(sorted(point.items()))
