"""How what was learned of other kernels, and of this one, leads the search of a kernel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hybridc.compiler.interfaces import Point, SearchTask, Trial
from hybridc.compiler.tuning import cost_model, features
from hybridc.compiler.tuning.cost_model import CostModel, Floats, Group
from hybridc.compiler.tuning.features import Features, Similar
from hybridc.compiler.tuning.kernel import Kernel

# Of the candidates that look best unscheduled, so many are scheduled to look again.
_SCHEDULED = 32


@dataclass(eq=False)
class Guide:
    """Predicts how the points of one kernel compare; where it cannot, the analytic model does.

    `model` is the pretrained one, or None; `similar` are kernels whose best points are known.
    """

    kernel: Kernel
    model: CostModel | None = None
    similar: Sequence[Similar] = ()
    _tuned: tuple[int, CostModel | None] = field(default=(0, None), init=False)

    @cached_property
    def features(self) -> Features:
        """The features of the kernel's points."""
        one = self.kernel
        return Features(one.func, one.rule, one.match, one.target)

    @cached_property
    def trusted(self) -> bool:
        """Whether the pretrained model learned from kernels like this one."""
        if self.model is None:
            return False
        default = self.kernel.rule.default(self.kernel.match, self.kernel.target)
        return self.model.knows(self.features.of([default]))

    def lead(self, search: SearchTask, history: Sequence[Trial]) -> SearchTask:
        """The search task with hints and a predictor, as far as there are any."""
        one = self.kernel
        hints = features.hints(one.rule_name, self.features.kernel, self.similar, search.space)
        model = self._current(history)
        if model is None and self._estimates(search.default) is None:
            return replace(search, hints=hints)
        return replace(search, hints=hints, score=lambda points: self.predict(points, history))

    def predict(self, points: Sequence[Point], history: Sequence[Trial]) -> list[float]:
        """A score for each point: the lower, the faster."""
        model = self._current(history)
        if model is None:
            estimates = [self._estimates(point) for point in points]
            return [np.inf if one is None else one for one in estimates]
        scores = model.predict(self.features.plain(points))
        if len(points) <= _SCHEDULED:
            return list(model.predict(self.features.of(points)))
        best = np.argsort(scores, kind="stable")[:_SCHEDULED]
        again = model.predict(self.features.of([points[i] for i in best]))
        scores += again.max() - scores.min() + 1  # behind those that were looked at again
        scores[best] = again
        return list(scores)

    def _current(self, history: Sequence[Trial]) -> CostModel | None:
        """The model after it learned from the trials; as long as they are few, the one before."""
        if self._tuned[0] != len(history) or not history:
            self._tuned = (len(history), self._learned(history))
        return self._tuned[1]

    def _learned(self, history: Sequence[Trial]) -> CostModel | None:
        base = self.model if self.trusted else None
        measured = [trial for trial in history if trial.seconds is not None]
        if len(measured) < cost_model.FEWEST:
            return base
        seconds: Floats = np.asarray([np.nan if t.seconds is None else t.seconds for t in history])
        group = Group(self.features.of([trial.point for trial in history]), seconds)
        return base.tuned(group) if base else cost_model.train([group], cost_model.COLD_TREES)

    def _estimates(self, point: Point) -> float | None:
        return self.kernel.rule.estimate(self.kernel.match, point)


def explain(name: str, predicted: Mapping[str, float], history: Sequence[Trial]) -> str:
    """Predicted against measured order of a kernel's trials, with Kendall's τ and the outliers.

    `predicted` holds scores by the text of a point, as `text` writes it.
    """
    pairs = [
        (predicted[text(trial.point)], trial)
        for trial in history
        if text(trial.point) in predicted and trial.seconds is not None
    ]
    if len(pairs) < 2:
        return f"{name}: too few trials were predicted to compare"
    scores, seconds = [score for score, _ in pairs], [trial.cost for _, trial in pairs]
    tau = cost_model.kendall(scores, seconds)
    by_score = sorted(range(len(pairs)), key=lambda i: scores[i])
    by_time = sorted(range(len(pairs)), key=lambda i: seconds[i])
    places = {i: place + 1 for place, i in enumerate(by_score)}
    lines = [f"{name}: Kendall's τ of predicted and measured {tau:.2f}, over {len(pairs)} trials"]
    for place, i in enumerate(by_time[:5]):
        trial = pairs[i][1]
        lines.append(
            f"  {place + 1}. measured ({trial.cost * 1e6:.1f} us), {places[i]}. predicted:"
            f" {text(trial.point)}"
        )
    return "\n".join(lines)


def text(point: Point) -> str:
    """A point as people read it: `rows=6 vectors=4`."""
    return " ".join(f"{knob}={value}" for knob, value in sorted(point.items()))
