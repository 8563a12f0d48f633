"""The options of a tuning."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Literal

from hybridc.compiler import pipeline
from hybridc.compiler.errors import PluginError
from hybridc.compiler.hardware import host
from hybridc.compiler.interfaces import Strategy
from hybridc.compiler.log.record import BIGGEST
from hybridc.compiler.text.units import parse_duration
from hybridc.compiler.tuning import strategies

Caches = Literal["auto", "warm", "cold"]
_LEAST = 1e-3  # seconds: a budget must be positive


@dataclass(frozen=True)
class Budget:
    """What a tuning may use: trials per kernel on average, including those in the log.

    Each kernel's default, with which trials are compared, is measured in addition; with 0 trials,
    nothing else is.  `seconds` limits this call, which then stops whatever is running; None is no
    limit.
    """

    trials: int = 32
    seconds: float | None = None

    @property
    def limit(self) -> float:
        """The seconds; infinite if there is no limit."""
        return inf if self.seconds is None else self.seconds


@dataclass(frozen=True)
class Tuning:
    """How to tune; every field is an option of `hybridc tune`, whose help describes it."""

    trials: int = 32
    budget: str | None = None
    strategy: str = "evolutionary"
    seed: int | None = None
    workers: int | None = None
    caches: Caches = "auto"

    def chosen(self, plugins: Sequence[Path] = ()) -> Strategy:
        """The strategy, which may be in one of these files.  Raises PluginError if it is wrong."""
        names = pipeline.split(self.strategy)
        if len(names) > 1:
            raise PluginError(
                f"a tuning has one strategy, got {len(names)}: {self.strategy}; to change between"
                f" them: bandit{{arms={'+'.join(names)}}}"
            )
        made = strategies.catalogue(plugins).create(self.strategy)
        made = made if self.seed is None else replace(made, seed=self.seed)
        if abs(made.seed) > BIGGEST:  # no record could hold it
            raise PluginError(
                f"a seed must be a whole number of at most {BIGGEST}, got {made.seed}"
            )
        return made

    def seconds(self) -> float | None:
        """The budget in seconds, if there is one.  Raises InputError if it is not a duration."""
        return None if self.budget is None else parse_duration(self.budget)

    def check(self, plugins: Sequence[Path] = ()) -> None:
        """Raise PluginError or InputError if an option is wrong, before anything takes time."""
        self.chosen(plugins)
        self.seconds()
        host.check_workers(self.workers)


@dataclass
class Algorithms:
    """How to measure the algorithms of an operator (see `tuning.algorithms`), and the results.

    `spent` are the seconds that it took; `notes` name the choices that differ from the analysis.
    """

    how: Tuning
    spent: float = 0.0
    notes: list[str] = field(default_factory=list[str])

    @property
    def left(self) -> Tuning:
        """The options, with the time that is left as budget."""
        seconds = self.how.seconds()
        if seconds is None or not self.spent:
            return self.how
        return replace(self.how, budget=f"{max(seconds - self.spent, _LEAST):.3f}s")
