"""Replay recorded sweeps, so that strategies are compared without hardware.

A sweep is one NPZ file: `meta`, JSON data as bytes, and for each kernel `0.points`, `0.rows`,
`0.seconds` and `0.features`.
"""

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
from numpy.typing import NDArray

from hybridc.compiler.errors import InputError, first_line
from hybridc.compiler.filesystem.files import reason, replacing
from hybridc.compiler.interfaces import Point, SearchTask, Space, Strategy, Trial
from hybridc.compiler.tuning import strategies
from hybridc.compiler.tuning.prediction import posterior
from hybridc.compiler.tuning.prediction.cost_model import Floats, Group
from hybridc.compiler.tuning.prediction.features import COLUMNS, Key, Matrix

# What numpy and zipfile raise where a file is torn, or something else.
_TORN = (
    KeyError, IndexError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
Score = Callable[[Sequence[Point]], Sequence[float]]
ROUND = 8  # trials between two looks at what they gained, as in a tuning
_LARGEST = 100_000  # points of the space of a log's kernel
_ESTIMATE = COLUMNS.index("estimate over default")


@dataclass(frozen=True, eq=False)
class Sweep:
    """Every point of a kernel's (thinned) space with its time.

    `points` are those that differ in their schedule, the default first; `rows[i]` is which of them
    the point number i of the space is.  `seconds` are NaN if a point failed, `features` NaN
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
        """What the analytic model says of each point, over the default; NaN if it cannot."""
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
        score: Score | None = None,
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
    expected: Floats | None = None,
    *,
    learn: bool = False,
    hints: Sequence[Point] = (),
    to_best: bool = False,
) -> list[Trial]:
    """Search a recorded kernel as it would be tuned: the default first, then round by round.

    The default is the baseline of a tuning and no trial of it: `trials` follow it.

    `expected` are logarithms of seconds up to a constant, one for each of `sweep.points`.  With
    `learn`, the trials correct them, or say alone what is to be expected.  With `to_best`, no
    round follows once the fastest point of all was tried: neither `trials_to` nor `curve` would
    tell anything else.
    """
    history: list[Trial] = []
    while len(history) <= trials:
        if to_best and any(trial.cost <= sweep.best for trial in history):
            break
        score = _learned(sweep, history, expected) if learn else _score(sweep, expected)
        count = min(ROUND, trials + 1 - len(history)) if history else 1
        points = strategies.proposed(strategy, sweep.task(score, hints), history, count)
        if not points:
            break
        history += [sweep.trial(point) for point in points]
    return history


def _learned(sweep: Sweep, history: Sequence[Trial], expected: Floats | None) -> Score | None:
    """What to expect after these trials."""
    seconds = np.asarray([trial.seconds or np.nan for trial in history], np.float64)
    if not np.isfinite(seconds).any():
        return _score(sweep, expected)
    known = np.zeros(len(sweep.points)) if expected is None else expected
    rows = [sweep.row(trial.point) for trial in history]
    found = posterior.fitted([sweep.points[row] for row in rows], known[rows], seconds)
    order = found.order(sweep.points, known)
    return lambda points: [float(order[sweep.row(point)]) for point in points]


def _score(sweep: Sweep, expected: Floats | None) -> Score | None:
    if expected is None:
        return None
    return lambda points: [float(expected[sweep.row(point)]) for point in points]


def estimated(sweep: Sweep) -> Floats | None:
    """What the analytic model expects of each point, where the kernel's rule has one."""
    estimates = np.asarray(sweep.estimates, np.float64)
    return estimates if np.isfinite(estimates).all() else None


def trials_to(history: Sequence[Trial], sweep: Sweep, within: float = 0.02) -> int | None:
    """Trials until one came within a share of the space's best; None if none did.

    0 where the default, which is no trial, is as near.
    """
    limit = (1 + within) * sweep.best
    return next((i for i, trial in enumerate(history) if trial.cost <= limit), None)


def curve(history: Sequence[Trial], sweep: Sweep, trials: int) -> Floats:
    """The best time so far over the space's best, `[trials + 1]`; exhausted searches stay.

    It begins with the default, before any trial.
    """
    costs = [trial.cost for trial in history] or [np.inf]
    best = np.minimum.accumulate(costs)[: trials + 1] / sweep.best
    return np.concatenate([best, np.full(trials + 1 - len(best), best[-1])])


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
    """Read sweeps.  Raises InputError in one line if the file holds none."""
    try:
        with np.load(path, allow_pickle=False) as data:
            meta = json.loads(data["meta"].tobytes())
            columns = meta["columns"]
            kernels = enumerate(meta["kernels"])
            return tuple(_read(data, i, kernel, columns) for i, kernel in kernels)
    except OSError as error:
        raise InputError(f"sweep {path}: {reason(error)}") from None
    except _TORN as error:
        raise InputError(f"sweep {path}: not a recorded sweep: {first_line(error)}") from None


def about(path: Path) -> Mapping[str, Any]:
    """What is known of the machine that a file was recorded on."""
    with np.load(path, allow_pickle=False) as data:
        known: Mapping[str, Any] = json.loads(data["meta"].tobytes())["about"]
        return known


def _read(data: Any, i: int, kernel: Mapping[str, Any], columns: Sequence[str]) -> Sweep:
    space = {knob: tuple(map(int, values)) for knob, values in kernel["space"].items()}
    points = [dict(zip(space, map(int, row), strict=True)) for row in data[f"{i}.points"]]
    rows, seconds = data[f"{i}.rows"], data[f"{i}.seconds"].astype(np.float64)
    features = _named(data[f"{i}.features"].astype(np.float32), columns)
    fitting = len(seconds) == len(points) == len(features)
    if not (fitting and len(rows) == prod(map(len, space.values())) and rows.max() < len(points)):
        raise ValueError(f"the arrays of {kernel['name']!r:.60} do not fit each other")
    return Sweep(
        kernel["name"], kernel["rule"], space, kernel["default"], tuple(points), rows, seconds,
        features,
    )  # fmt: skip


def _named(features: Matrix, columns: Sequence[str]) -> Matrix:
    """Features by today's columns; NaN for those that the version which recorded them lacked."""
    places = {name: i for i, name in enumerate(columns)}
    made = np.full((len(features), len(COLUMNS)), np.nan, np.float32)
    for i, name in enumerate(COLUMNS):
        if name in places:
            made[:, i] = features[:, places[name]]
    return made


def recorded(
    name: str,
    rule: str,
    default: Point,
    trials: Sequence[Trial],
    predicted: Mapping[Key, float | None] | None = None,
) -> Sweep:
    """A sweep of what a tuning log holds of one kernel.

    The space is spanned by the values that were tried; where a point of it was not, the nearest
    one that was stands for it.  `predicted` are the seconds that were expected of the points.
    Raises InputError if no trial has the knobs of the default, or the space is too large.
    """
    alike = {
        tuple(t.point[k] for k in default): t for t in trials if t.point.keys() == default.keys()
    }
    if not alike:
        raise InputError(f"{name}: no record has the knobs of {rule}")
    start = tuple(default.values())
    alike = {start: alike.pop(start, Trial(default)), **alike}
    space = {knob: tuple(sorted({values[i] for values in alike})) for i, knob in enumerate(default)}
    if prod(map(len, space.values())) > _LARGEST:
        raise InputError(f"{name}: its space has more than {_LARGEST} points")
    points = tuple(dict(zip(default, values, strict=True)) for values in alike)
    features = np.full((len(points), len(COLUMNS)), np.nan, np.float32)
    guesses = predicted or {}
    seconds = [guesses.get(tuple(sorted(point.items()))) or np.nan for point in points]
    features[:, _ESTIMATE] = np.log(seconds) - np.log(seconds[0])
    times = [np.nan if trial.seconds is None else trial.seconds for trial in alike.values()]
    rows = _nearest(space, np.asarray(list(alike), np.float64))
    return Sweep(name, rule, space, default, points, rows, np.asarray(times), features)


def _nearest(space: Space, tried: Floats) -> NDArray[np.int64]:
    """For each point of the space, which of those that were tried is nearest, by ratio."""
    axes = [np.log2(1 + np.abs(np.asarray(values, np.float64))) for values in space.values()]
    apart = [
        np.abs(axis[:, None] - np.log2(1 + np.abs(column))) ** 2
        for axis, column in zip(axes, tried.T, strict=True)
    ]
    total = np.zeros((1, len(tried)))
    for one in apart:
        total = (total[:, None] + one[None]).reshape(-1, len(tried))
    return np.asarray(total.argmin(axis=1), np.int64)
