"""Train the cost model further, on what one's own tuning log knows of one's own models.

The log keeps no loop nests, of which the cost model sees features: the models that were tuned have
them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from hybridc.compiler.building.unscheduled import Unscheduled
from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem.files import reason
from hybridc.compiler.log import keys
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning import tasks
from hybridc.compiler.tuning.prediction import cost_model
from hybridc.compiler.tuning.prediction.cost_model import CostModel, Group
from hybridc.compiler.tuning.prediction.features import RULES
from hybridc.compiler.tuning.tasks import Task
from hybridc.compiler.tuning.trials import history

# Points of a kernel that tell anything of its ranking, and kernels of which some are held out.
_POINTS, _KERNELS = 4, 4
_FOLDS = 5
_STATES = ("warm", "cold")


@dataclass(frozen=True)
class Trained:
    """What came of it: how many kernels and points taught the model, and where it is, if it pays.

    `before` and `after` are median Kendall's τ over kernels that were held out: of the model of the
    package, and of one that learned from the others as well.  `replaced` where a model was there,
    which may have learned from other models' kernels.
    """

    kernels: int
    points: int
    before: float
    after: float
    file: Path | None
    replaced: bool = False

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON data."""
        return {**vars(self), "file": str(self.file) if self.file else None}

    def __str__(self) -> str:
        """The figures, and what follows from them."""
        told = (
            f"{self.points} points of {self.kernels} kernels; on held-out kernels τ is"
            f" {self.before:.2f} with the package's model and {self.after:.2f} after training"
        )
        if self.file is None:
            return f"{told}: it is not kept"
        instead = " instead of the one that was there" * self.replaced
        used = f"it is used for tuning from now on{instead}; remove it to undo that"
        return f"{told}\n{self.file}: {used}"


def train(
    log: TuningLog,
    models: Iterable[Unscheduled],
    progress: Callable[[str], None] = lambda _: None,
    plugins: tuple[Path, ...] = (),
) -> Trained:
    """Train the model of the package on what a log knows of these models' kernels.

    It is kept where it ranks kernels that were held out no worse than before.  Raises InputError
    where there are too few of them.
    """
    kernels = {task.workload.key: task for model in models for task in _tasks(model, plugins)}
    found = [groups for task in kernels.values() if (groups := _groups(task, log))]
    if len(found) < _KERNELS:
        raise InputError(
            f"training takes {_KERNELS} kernels with {_POINTS} points or more in {log.name}, and"
            f" these models have {len(found)}: tune them first (`hybridc tune`)"
        )
    target = next(iter(kernels.values())).kernel.target
    base = cost_model.load(cost_model.pretrained(target))
    before, after = _held_out(found, base, progress)
    file = cost_model.own() if after >= before else None
    every = [group for groups in found for group in groups]
    replaced = file is not None and file.exists()
    if file is not None:
        _save(cost_model.refined(base, every), file)
    points = sum(len(group.seconds) for group in every)
    return Trained(len(found), points, before, after, file, replaced)


def _save(model: CostModel, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        model.save(file)
    except OSError as error:
        raise InputError(f"cannot write {file}: {reason(error)}") from error


def _tasks(model: Unscheduled, plugins: tuple[Path, ...]) -> list[Task]:
    return tasks.distinct(tasks.kernels(model.module, model.context, model.finish, plugins))


def _groups(task: Task, log: TuningLog) -> list[Group]:
    """A kernel as training data, in each state of the caches that the log has enough points of."""
    found = (_group(task, log, state) for state in _STATES)
    return [group for group in found if group is not None]


def _group(task: Task, log: TuningLog, state: str) -> Group | None:
    """What was measured of a kernel on this target; None if that is too little.

    Nor does the model learn of a rule that its features do not name: it could not tell it from
    others of these.
    """
    if task.kernel.rule_name not in RULES:
        return None
    target = keys.of_target(task.kernel.target)
    records = log.records(task.workload.key, target.key, keys.of_toolchain().key)
    trials = [
        (trial.point, trial.seconds)
        for trial in history(records, task.kernel.rule_name, state)
        if trial.seconds is not None and task.search.contains(trial.point)
    ]
    if len(trials) < _POINTS:
        return None
    points, seconds = zip(*trials, strict=True)
    return Group(task.predictor.features.of(points), np.asarray(seconds, np.float64))


def _held_out(
    found: Sequence[Sequence[Group]], base: CostModel, progress: Callable[[str], None]
) -> tuple[float, float]:
    """Median τ of the model, and of what it becomes on the other kernels.

    A kernel is held out in all states of the caches: by one of them the others are known.
    """
    before, after = list[float](), list[float]()
    for fold in range(_FOLDS):
        tested = [group for groups in found[fold::_FOLDS] for group in groups]
        kernels = [groups for i, groups in enumerate(found) if i % _FOLDS != fold]
        progress(f"training {fold + 1}/{_FOLDS + 1}")
        if tested:
            before += [_tau(base, group) for group in tested]
            learned = cost_model.refined(base, [group for groups in kernels for group in groups])
            after += [_tau(learned, group) for group in tested]
    return median(before), median(after)


def _tau(model: CostModel, group: Group) -> float:
    """Kendall's τ; 0, as of a random order, where the model or the clock tells no points apart."""
    found = cost_model.kendall(model.predict(group.features), group.seconds)
    return found if isfinite(found) else 0.0
