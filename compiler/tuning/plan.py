"""How to tune, as people say it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Literal

from hybridc.compiler import pipeline, strategies
from hybridc.compiler.errors import PluginError
from hybridc.compiler.hardware import host
from hybridc.compiler.interfaces import Strategy
from hybridc.compiler.log.record import BIGGEST
from hybridc.compiler.units import parse_duration

Caches = Literal["auto", "warm", "cold"]
_LEAST = 1e-3  # seconds: a budget of none is no budget


@dataclass(frozen=True)
class Budget:
    """What a tuning may take: trials for each kernel on average, those of the log counted in.

    The default of each kernel, to which trials are compared, is measured besides; with no trials it
    is all that is measured.  `seconds` are those of this call, which ends then whatever is at work;
    None sets no limit.
    """

    trials: int = 32
    seconds: float | None = None

    @property
    def limit(self) -> float:
        """The seconds, infinite where there is no limit."""
        return inf if self.seconds is None else self.seconds


@dataclass(frozen=True)
class Tuning:
    """How to tune; every field is an option of `hybridc tune`, which tells what it means."""

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
        """The budget, if there is one.  Raises InputError where it is no duration."""
        return None if self.budget is None else parse_duration(self.budget)

    def check(self, plugins: Sequence[Path] = ()) -> None:
        """Raise what is wrong with the options before anything takes time."""
        self.chosen(plugins)
        self.seconds()
        host.check_workers(self.workers)


@dataclass
class Algorithms:
    """How to measure the algorithms of an operator (see `tuning.algorithms`), and what came of it.

    `spent` are the seconds that it took; `notes` tell where it was not what analysis thought.
    """

    how: Tuning
    spent: float = 0.0
    notes: list[str] = field(default_factory=list[str])

    @property
    def left(self) -> Tuning:
        """How to tune in the time that is left."""
        seconds = self.how.seconds()
        if seconds is None or not self.spent:
            return self.how
        return replace(self.how, budget=f"{max(seconds - self.spent, _LEAST):.3f}s")
