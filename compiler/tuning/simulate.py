"""Replay recorded sweeps, so that strategies are compared without hardware.

A sweep is one NPZ file: `meta`, JSON data as bytes, and for each kernel `0.points`, `0.rows`,
`0.seconds` and `0.features`.
"""

import itertools
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler.errors import InputError
from hybridc.compiler.files import reason, replacing
from hybridc.compiler.interfaces import Point, SearchTask, Space, Strategy, Trial
from hybridc.compiler.tuning.cost_model import COLD_TREES, FEWEST, CostModel, Floats, Group, train
from hybridc.compiler.tuning.features import COLUMNS, Matrix

# What numpy and zipfile raise where a file is torn, or something else.
_TORN = (
    KeyError, IndexError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
ROUND = 8  # trials between two looks at what they gained, as in a tuning
_ESTIMATE = COLUMNS.index("estimate over default")


@dataclass(frozen=True, eq=False)
class Sweep:
    """Every point of a kernel's (thinned) space with its time.

    `points` are those that differ in their schedule, the default first; `rows[i]` is which of them
    the point number i of the space is.  `seconds` are NaN where a point failed, `features` NaN
    where they are not known.
    """

    name: str
    rule: str
    space: Space
    default: Point
    points: tuple[Point, ...]
    rows: Any = field(repr=False)
    seconds: Floats = field(repr=False)
    features: Matrix = field(repr=False)

    @property
    def best(self) -> float:
        """Seconds of the fastest point."""
        return float(np.nanmin(self.seconds))

    @property
    def estimates(self) -> Matrix:
        """What the analytic model says of each point, over the default; NaN where it cannot."""
        return self.features[:, _ESTIMATE]

    @property
    def group(self) -> Group:
        """The sweep as training data."""
        return Group(self.features, self.seconds)

    def row(self, point: Point) -> int:
        """Which of `points` this point of the space is."""
        number = 0
        for knob, place in self._places.items():
            number = number * len(place) + place[point[knob]]
        return int(self.rows[number])

    @cached_property
    def _places(self) -> Mapping[str, Mapping[int, int]]:
        return {knob: {v: i for i, v in enumerate(values)} for knob, values in self.space.items()}

    def trial(self, point: Point) -> Trial:
        """What measuring a point would tell."""
        seconds = float(self.seconds[self.row(point)])
        return Trial(point, seconds if isfinite(seconds) else None)

    def task(
        self,
        score: Callable[[Sequence[Point]], Sequence[float]] | None = None,
        hints: Sequence[Point] = (),
    ) -> SearchTask:
        """The search task that a tuning would have."""
        return SearchTask(
            self.space, self.default, tuple(hints), lambda p: self.points[self.row(p)], score
        )


def replay(  # noqa: PLR0913 - what a tuning has
    sweep: Sweep,
    strategy: Strategy,
    trials: int,
    model: CostModel | None = None,
    *,
    learn: bool = False,
    hints: Sequence[Point] = (),
) -> list[Trial]:
    """Search a recorded kernel as it would be tuned, round by round.

    `model` predicts from the start; with `learn`, it learns from each round's trials, and without
    a model one is trained from them alone.
    """
    history: list[Trial] = []
    while len(history) < trials:
        current = _learned(sweep, history, model) if learn else model
        task = sweep.task(_score(sweep, current), hints)
        points = strategy.propose(task, history, min(ROUND, trials - len(history)))
        if not points:
            break
        history += [sweep.trial(point) for point in points]
    return history


def _learned(sweep: Sweep, history: Sequence[Trial], model: CostModel | None) -> CostModel | None:
    rows = [sweep.row(trial.point) for trial in history]
    group = Group(sweep.features[rows], sweep.seconds[rows])
    if np.isfinite(group.seconds).sum() < FEWEST:
        return model
    return model.tuned(group) if model else train([group], COLD_TREES)


def _score(
    sweep: Sweep, model: CostModel | None
) -> Callable[[Sequence[Point]], Sequence[float]] | None:
    if model is None:
        return None
    predicted = model.predict(sweep.features)
    return lambda points: [float(predicted[sweep.row(point)]) for point in points]


def analytic(sweep: Sweep) -> Callable[[Sequence[Point]], Sequence[float]] | None:
    """The analytic model as a predictor, where the kernel's rule has one."""
    estimates = sweep.estimates
    if not np.isfinite(estimates).all():
        return None
    return lambda points: [float(estimates[sweep.row(point)]) for point in points]


def trials_to(history: Sequence[Trial], sweep: Sweep, within: float = 0.02) -> int | None:
    """Trials until one came within a share of the space's best; None where none did."""
    limit = (1 + within) * sweep.best
    return next((i + 1 for i, trial in enumerate(history) if trial.cost <= limit), None)


def curve(history: Sequence[Trial], sweep: Sweep, trials: int) -> Floats:
    """After each trial, the best time so far over the space's best; exhausted searches stay."""
    costs = [trial.cost for trial in history] or [np.inf]
    best = np.minimum.accumulate(costs)[:trials] / sweep.best
    return np.concatenate([best, np.full(trials - len(best), best[-1])])


def save(path: Path, sweeps: Sequence[Sweep], about: Mapping[str, Any]) -> None:
    """Write sweeps, with what is to be known of them (machine, versions)."""
    kernels = [
        {"name": s.name, "rule": s.rule, "space": s.space, "default": s.default} for s in sweeps
    ]
    meta = json.dumps({"about": about, "columns": COLUMNS, "kernels": kernels})
    arrays: dict[str, Any] = {"meta": np.frombuffer(meta.encode(), np.uint8)}
    for i, s in enumerate(sweeps):
        arrays[f"{i}.points"] = np.asarray([list(p.values()) for p in s.points], np.int32)
        arrays[f"{i}.rows"] = np.asarray(s.rows, np.int16)
        arrays[f"{i}.seconds"] = s.seconds.astype(np.float32)
        arrays[f"{i}.features"] = s.features.astype(np.float16)
    with replacing(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load(path: Path) -> tuple[Sweep, ...]:
    """Read sweeps.  Raises InputError in one line where the file holds none."""
    try:
        with np.load(path, allow_pickle=False) as data:
            meta = json.loads(data["meta"].tobytes())
            known = meta["columns"] == list(COLUMNS)
            return tuple(_read(data, i, kernel, known) for i, kernel in enumerate(meta["kernels"]))
    except OSError as error:
        raise InputError(f"sweep {path}: {reason(error)}") from None
    except _TORN as error:
        line = (str(error).splitlines() or [""])[0]
        raise InputError(f"sweep {path}: not a recorded sweep: {line}") from None


def about(path: Path) -> Mapping[str, Any]:
    """What is known of the machine that a file was recorded on."""
    with np.load(path, allow_pickle=False) as data:
        known: Mapping[str, Any] = json.loads(data["meta"].tobytes())["about"]
        return known


def _read(data: Any, i: int, kernel: Mapping[str, Any], known: bool) -> Sweep:
    space = {knob: tuple(map(int, values)) for knob, values in kernel["space"].items()}
    points = [dict(zip(space, map(int, row), strict=True)) for row in data[f"{i}.points"]]
    rows, seconds = data[f"{i}.rows"], data[f"{i}.seconds"].astype(np.float64)
    features = data[f"{i}.features"].astype(np.float32)
    if not known:  # recorded by another version: times still hold
        features = np.full((len(points), len(COLUMNS)), np.nan, np.float32)
    fitting = len(seconds) == len(points) == len(features)
    if not (fitting and len(rows) == prod(map(len, space.values())) and rows.max() < len(points)):
        raise ValueError(f"the arrays of {kernel['name']!r:.60} do not fit each other")
    return Sweep(
        kernel["name"], kernel["rule"], space, kernel["default"], tuple(points), rows, seconds,
        features,
    )  # fmt: skip


def recorded(name: str, rule: str, default: Point, trials: Sequence[Trial]) -> Sweep:
    """A sweep of what a tuning log holds of one kernel; points that were not tried count as failed.

    Raises InputError where no trial is at all like the default.
    """
    alike = [trial for trial in trials if trial.point.keys() == default.keys()]
    if not alike:
        raise InputError(f"{name}: no record has the knobs of {rule}")
    known = {tuple(trial.point[knob] for knob in default): trial.seconds for trial in alike}
    known.setdefault(tuple(default.values()), None)
    space = {knob: tuple(sorted({values[i] for values in known})) for i, knob in enumerate(default)}
    points = list(itertools.product(*space.values()))
    seconds = [known.get(values) for values in points]
    return Sweep(
        name,
        rule,
        space,
        default,
        tuple(dict(zip(space, values, strict=True)) for values in points),
        np.arange(len(points)),
        np.asarray([np.nan if one is None else one for one in seconds], np.float64),
        np.full((len(points), len(COLUMNS)), np.nan, np.float32),
    )
