"""Strategies compared on recorded kernels, without hardware: `hybridc tune --simulate`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler import pipeline
from hybridc.compiler.errors import InputError
from hybridc.compiler.interfaces import Strategy, Trial
from hybridc.compiler.log import access
from hybridc.compiler.log.record import Record
from hybridc.compiler.text import tables
from hybridc.compiler.tuning.options import Tuning
from hybridc.compiler.tuning.prediction.cost_model import Floats
from hybridc.compiler.tuning.simulation import simulate
from hybridc.compiler.tuning.simulation.simulate import Sweep
from hybridc.compiler.tuning.trials import history

# Kernels with fewer points than this tell nothing of strategies.
_FEWEST = 12
_SEEDS = 5
_WITHIN, _EARLY = 0.02, 16
_BASELINE = "random"


@dataclass(frozen=True)
class Result:
    """A strategy on every kernel, with every seed.

    `needed` `[kernels, seeds]` are trials until one came within 2 % of the kernel's best, none
    where the default is, all trials where none did; `early` is the best after 16 trials over the
    kernel's best.
    """

    name: str
    needed: Floats
    early: Floats
    missed: float

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON data: medians over kernels of means over seeds."""
        return {
            "strategy": self.name,
            "trials": float(np.median(self.needed.mean(axis=1))),
            "after_16": float(np.exp(np.log(self.early).mean())),
            "not_found": self.missed,
        }


@dataclass(frozen=True)
class Comparison:
    """What came of it; `skipped` kernels had too few points."""

    source: str
    kernels: int
    skipped: int
    trials: int
    results: tuple[Result, ...]

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON data."""
        return {
            "source": self.source,
            "kernels": self.kernels,
            "skipped": self.skipped,
            "trials": self.trials,
            "seeds": _SEEDS,
            "strategies": [one.to_json() for one in self.results],
        }

    def text(self) -> str:
        """The comparison as a table."""
        rows: list[Sequence[str]] = []
        for one in (result.to_json() for result in self.results):
            after, missing = f"{one['after_16']:.3f}", f"{one['not_found']:.0%}"
            rows.append((one["strategy"], f"{one['trials']:.1f}", after, missing))
        early = f"best after {min(_EARLY, self.trials)}"
        heads = ("strategy", "trials to 2 %", early, "not found")
        left = f" ({self.skipped} with fewer than {_FEWEST} points left out)" * bool(self.skipped)
        return (
            f"{self.kernels} kernels of {self.source}{left}, {_SEEDS} seeds, {self.trials} trials;"
            f" nothing was measured\n{tables.table(heads, rows)}"
        )


def compare(
    source: str,
    how: Tuning,
    plugins: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Replay a recorded sweep (`.npz`) or a tuning log by the strategies that `how` names.

    Several have commas between; `random` is the baseline.  The analytic model leads those that
    follow a predictor, where it is recorded.  Raises InputError if nothing can be replayed.
    """
    mode = None if how.caches == "auto" else how.caches
    found = recorded(source, mode, plugins)
    kernels = [sweep for sweep in found if len(sweep.points) >= _FEWEST]
    if not kernels:
        caches = f" with {mode} caches" if mode else ""
        raise InputError(f"{source}: no kernel with {_FEWEST} points or more was measured{caches}")
    names = list(dict.fromkeys([*pipeline.split(how.strategy), _BASELINE]))
    first = how.seed or 0
    results: list[Result] = []
    for number, name in enumerate(names, 1):
        progress(f"replaying {name} on {len(kernels)} kernels ({number} of {len(names)})")
        strategy = replace(how, strategy=name).chosen(plugins)
        results.append(run(name, strategy, kernels, how.trials, first))
    return Comparison(source, len(kernels), len(found) - len(kernels), how.trials, tuple(results))


def run(name: str, strategy: Strategy, kernels: Sequence[Sweep], trials: int, first: int) -> Result:
    """One strategy on recorded kernels, with seeds from `first` on."""
    needed = np.zeros((len(kernels), _SEEDS))
    early = np.ones((len(kernels), _SEEDS))
    missed = 0
    for i, kernel in enumerate(kernels):
        expected = simulate.estimated(kernel)
        for seed in range(_SEEDS):
            seeded = replace(strategy, seed=first + seed)
            history = simulate.replay(kernel, seeded, trials, expected, learn=True, to_best=True)
            found = simulate.trials_to(history, kernel, _WITHIN)
            missed += found is None
            needed[i, seed] = trials if found is None else found
            early[i, seed] = simulate.curve(history, kernel, trials)[min(_EARLY, trials)]
    return Result(name, needed, early, missed / needed.size)


def recorded(source: str, mode: str | None, plugins: Sequence[Path] = ()) -> tuple[Sweep, ...]:
    """The kernels of a sweep or a log that were measured, in one state of the caches if named."""
    if source.endswith(".npz"):
        return simulate.load(Path(source))
    if "://" not in source and not Path(source).exists():
        raise InputError(f"--simulate {source}: no such file")
    with access.open_log(source, readonly=True, plugins=tuple(plugins)) as log:
        return tuple(_sweeps(record for record in log.records() if mode in (None, record.mode)))


def _sweeps(records: Iterable[Record]) -> Iterable[Sweep]:
    """A sweep of each kernel, target, toolchain and rule whose points have knobs."""
    series: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if record.point:
            key = (record.workload, record.target, record.toolchain, record.rule, record.mode)
            series.setdefault(key, []).append(record)
    for (workload, _, _, rule, mode), found in series.items():
        trials = [t for t in history(found, rule, mode) if _alike(t, found[0])]
        if any(trial.seconds is not None for trial in trials):
            # A tuning measures the default first.
            name, default = f"{rule} {workload[:8]}", found[0].point
            expected = {tuple(sorted(r.point.items())): r.predicted for r in found}
            yield simulate.recorded(name, rule, default, trials, expected)


def _alike(trial: Trial, record: Record) -> bool:
    return trial.point.keys() == record.point.keys()
