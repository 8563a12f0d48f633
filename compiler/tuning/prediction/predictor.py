"""What is expected of points before they are measured: by analysis, by learning, by the trials."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from math import exp, inf
from typing import TYPE_CHECKING, Literal

import numpy as np

from hybridc.compiler.errors import InputError
from hybridc.compiler.interfaces import Point, Trial
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.prediction import posterior
from hybridc.compiler.tuning.prediction.features import Features, Key, Matrix
from hybridc.compiler.tuning.prediction.posterior import Floats

if TYPE_CHECKING:
    from hybridc.compiler.tuning.prediction.cost_model import CostModel

Score = Callable[[Sequence[Point]], Sequence[float]]
Look = Callable[[Sequence[Point]], Matrix | None]

# What orders points: the learned cost model, the rule's analytic one, or the trials alone.
Guide = Literal["learned", "analytic", "trials"]

# Points whose loop nests are looked at in one call; each takes tens of milliseconds.  Which ones,
# the model says by what it sees without them.
_SHORT = 32


@dataclass
class Predictor:
    """Ranks the points of one kernel; the lower the score, the faster.

    Features of points are asked for, not made here: what a rule makes of a point may crash or hang.
    Once they are refused, analysis alone goes on.  `asked` once a strategy had points ranked.
    """

    kernel: Kernel
    asked: bool = False
    _estimates: dict[Key, float] = field(default_factory=dict[Key, float])
    _rows: dict[Key, Matrix] = field(default_factory=dict[Key, Matrix])
    _refused: bool = False

    def estimate(self, point: Point) -> float | None:
        """Seconds of one call by the rule's analytic model, if it has one."""
        cycles = self.kernel.rule.estimate(self.kernel.match, point)
        return cycles / self.kernel.target.machine.hertz if cycles else None

    def score(self, history: Sequence[Trial], features: Look) -> Score | None:
        """How to rank points after these trials; None if nothing is known."""
        model = self._model(features)
        trials = [trial for trial in history if trial.point.keys() == self._default.keys()]
        if model is None and not self._estimated and not trials:
            return None
        tried = [self._canonical(trial.point) for trial in trials]
        seconds = np.asarray([trial.seconds or np.nan for trial in trials], np.float64)
        failed = {_key(point) for point, one in zip(tried, seconds, strict=True) if np.isnan(one)}

        def ranked(points: Sequence[Point]) -> list[float]:
            self.asked = True
            canonical = [self._canonical(point) for point in points]
            expected = self._expected(model, [*canonical, *tried], failed, features)
            here, there = expected[: len(points)], expected[len(points) :]
            if not np.isfinite(seconds).any():
                return [float(value) for value in here]
            found = posterior.fitted(tried, there, seconds)
            return [float(place) for place in found.order(canonical, here)]

        return ranked

    @property
    def guide(self) -> Guide:
        """What orders points; trials correct it."""
        if self._knowing(self._seen([self._default])) is not None:
            return "learned"
        return "analytic" if self._estimated else "trials"

    def learned(self, points: Sequence[Point]) -> list[float] | None:
        """Times over the default's by the cost model; None if it does not know the kernel.

        It sees the loop nests of the points that were looked at while they were ranked.
        """
        rows = self._seen([self._default, *map(self._canonical, points)])
        if (model := self._knowing(rows[:1])) is None:
            return None
        first, *others = model.predict(rows)
        return [exp(value - first) for value in others]

    def _seen(self, points: Sequence[Point]) -> Matrix:
        """A row for each point, with the loop nests of those that were looked at."""
        rows = self.features.plain(points)
        for row, point in zip(rows, points, strict=True):
            row[:] = self._rows.get(_key(point), row)
        return rows

    def _expected(
        self, model: "CostModel | None", points: Sequence[Point], failed: Set[Key], features: Look
    ) -> Floats:
        """Logarithms of seconds up to a constant; of the best, the model sees the loop nests."""
        if model is None:
            return self._analytic(points)
        found = model.predict(self.features.plain(points))
        sound = [i for i, point in enumerate(points) if _key(point) not in failed]
        looked = sorted(sound, key=lambda i: found[i])[:_SHORT]
        rows = self._features([points[i] for i in looked], features)
        if rows is not None:
            found[looked] = model.predict(rows)
        return found

    def _canonical(self, point: Point) -> Point:
        return self.kernel.rule.canonical(self.kernel.match, point)

    def _model(self, features: Look) -> "CostModel | None":
        """The cost model, if it knows such kernels; it looks at the default."""
        if self._pretrained is None:
            return None
        self._features([self._default], features)
        return self._knowing(self._seen([self._default]))

    def _knowing(self, rows: Matrix) -> "CostModel | None":
        """The cost model, if these rows are of such kernels as it learned from."""
        model = self._pretrained
        return model if model is not None and model.knows(rows) else None

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

    def _analytic(self, points: Sequence[Point]) -> Floats:
        """Logarithms of the rule's own estimates; nothing where it has none."""
        if not self._estimated:
            return np.zeros(len(points))
        found = np.log([self._rank(point) for point in points])
        finite = found[np.isfinite(found)]
        return np.where(np.isfinite(found), found, finite.max(initial=0.0) + 1.0)

    def _rank(self, point: Point) -> float:
        key = _key(point)
        if key not in self._estimates:
            seconds = self.estimate(point)
            self._estimates[key] = inf if seconds is None else seconds
        return self._estimates[key]

    @cached_property
    def _pretrained(self) -> "CostModel | None":
        """The model of the package, if it can be used; the tuning says why where it cannot."""
        from hybridc.compiler.tuning.prediction import cost_model

        try:
            return cost_model.best(self.kernel.target)[0]
        except InputError:
            return None

    @cached_property
    def features(self) -> Features:
        """The kernel's features; of points, only those that need no schedule are made here."""
        kernel = self.kernel
        return Features(kernel.func, kernel.rule, kernel.match, kernel.target)

    @cached_property
    def _default(self) -> Point:
        return self.kernel.rule.default(self.kernel.match, self.kernel.target)

    @cached_property
    def _estimated(self) -> bool:
        return self.estimate(self._default) is not None


def _key(point: Point) -> Key:
    return tuple(sorted(point.items()))
