"""Shared by the strategies that are samplers of Optuna, driven by ask and tell."""

import hashlib
import importlib.util
import json
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite, log
from random import Random
from typing import Any, ClassVar

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from hybridc.autotune import _points
from hybridc.compiler import plugin
from hybridc.compiler.errors import PluginError, first_line
from hybridc.compiler.interfaces import Point, SearchTask, Strategy, Trial
from hybridc.compiler.log import urls

# Questions to a sampler in one proposal; one that repeats itself that often has converged.
_QUESTIONS = 64


@dataclass(frozen=True)
class Stored(Strategy):
    """A sampler that is asked for points.

    With `storage`, the URL of an Optuna database, the trials are also written there, with a study
    per kernel, for Optuna's dashboard: parameters are the indices of the knobs' values, the value
    is the logarithm of the seconds, and the point and the seconds are attributes.
    """

    storage: str = ""

    def __post_init__(self) -> None:
        """Refuse to work where Optuna is not installed, or no such storage can be."""
        name = plugin.name_of(type(self))
        if importlib.util.find_spec("optuna") is None:
            raise PluginError(f"{name} needs Optuna: pip install 'hybridc[tune]'")
        try:
            if self.storage:
                make_url(self.storage).get_dialect()
        except ArgumentError as error:
            told = f"{name}: storage {urls.hidden(self.storage)!r}: {first_line(error)}"
            raise PluginError(told) from error

    @abstractmethod
    def asked(self, task: SearchTask, history: Sequence[Trial], draw: Random) -> Iterator[Point]:
        """What the sampler asks for after these trials."""

    def candidates(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterator[Point]:
        """What the sampler asks for, then changes of the fastest points."""
        free = _points.free(task.space)
        if free:
            yield from islice(self.asked(task, history, draw), _QUESTIONS)
        best = _points.ranked(history)[:4] or [Trial(task.default)]
        while free:
            yield _points.changed(task.space, draw.choice(best).point, draw)

    def observe(self, task: SearchTask, history: Sequence[Trial]) -> None:
        """Write the trials to the storage, where there is one."""
        if self.storage and _points.free(task.space):
            self._publish(task, [trial for trial in history if task.contains(trial.point)])

    def _publish(self, task: SearchTask, history: Sequence[Trial]) -> None:
        """Add the trials that the study in the storage lacks."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        described = [task.name, task.space, task.default, self.seed]
        identity = json.dumps(described, sort_keys=True)
        kind = plugin.name_of(type(self))
        name = f"hybridc-{kind}-{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}"
        try:
            study = optuna.create_study(storage=self.storage, study_name=name, load_if_exists=True)
            known = {_told(trial) for trial in study.get_trials(deepcopy=False)}
            study.add_trials([t for t in _finished(task, history) if _told(t) not in known])
        except Exception as error:  # drivers raise errors of many kinds
            raise PluginError(
                f"{kind}: storage {urls.hidden(self.storage)!r}: {first_line(error)}"
            ) from error


@dataclass(frozen=True)
class OptunaStrategy(Stored):
    """A sampler of Optuna that is told the history; its variables are places of knobs."""

    # Whether the sampler only learns from trials that it was asked for: those are asked again.
    replays: ClassVar[bool] = True

    @abstractmethod
    def sampler(self, seed: int) -> Any:
        """The sampler, as if nothing had been asked of it."""

    def asked(self, task: SearchTask, history: Sequence[Trial], draw: Random) -> Iterator[Point]:
        """What the sampler asks for in a study of these trials."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            ranges = distributions(task)
            # NumPy's generators take no seeds below 0 or beyond 32 bits.
            seed = self.seed % 2**32 if self.replays else draw.randrange(2**31)
            study = optuna.create_study(sampler=self.sampler(seed))
            if self.replays:
                for trial, cost in zip(history, costs(history), strict=True):
                    study.enqueue_trial(_places(task, trial.point))
                    study.tell(study.ask(ranges), cost)
            else:
                study.add_trials(_finished(task, history))
            while True:
                yield _point(task, study.ask(ranges).params)


def distributions(task: SearchTask) -> dict[str, Any]:
    """A variable for each knob that has a choice: the place of its value."""
    from optuna.distributions import IntDistribution

    free = _points.free(task.space)
    return {knob: IntDistribution(0, len(task.space[knob]) - 1) for knob in free}


def costs(history: Sequence[Trial]) -> list[float]:
    """Logarithms of seconds; a failure counts as twice the slowest."""
    known = [trial.cost for trial in _points.measured(history)]
    worst = 2 * max(known, default=1.0)
    return [log(trial.cost if isfinite(trial.cost) else worst) for trial in history]


def _told(trial: Any) -> str:
    """The point that a trial in a study is of."""
    return json.dumps(trial.user_attrs.get("point"), sort_keys=True)


def _places(task: SearchTask, point: Point) -> dict[str, int]:
    return {knob: task.space[knob].index(point[knob]) for knob in _points.free(task.space)}


def _point(task: SearchTask, places: Mapping[str, int]) -> Point:
    return {knob: values[places.get(knob, 0)] for knob, values in task.space.items()}


def _finished(task: SearchTask, history: Sequence[Trial]) -> list[Any]:
    from optuna.trial import create_trial

    ranges = distributions(task)
    return [
        create_trial(
            params=_places(task, trial.point),
            distributions=ranges,
            value=cost,
            user_attrs={"point": dict(trial.point), "seconds": trial.seconds},
        )
        for trial, cost in zip(history, costs(history), strict=True)
    ]
