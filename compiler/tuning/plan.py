"""How to tune, as people say it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Literal

from hybridc.compiler import pipeline, strategies
from hybridc.compiler.errors import PluginError
from hybridc.compiler.hardware import host
from hybridc.compiler.interfaces import Strategy
from hybridc.compiler.units import parse_duration

Caches = Literal["warm", "cold"]


@dataclass(frozen=True)
class Budget:
    """What a tuning may take: trials for each kernel on average, those of the log counted in.

    `seconds` are those of this call, which ends then whatever is at work; None sets no limit.
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
    caches: Caches = "warm"

    def chosen(self, plugins: Sequence[Path] = ()) -> Strategy:
        """The strategy, which may be in one of these files.  Raises PluginError if it is wrong."""
        names = pipeline.split(self.strategy)
        if len(names) > 1:
            raise PluginError(
                f"a tuning has one strategy, got {len(names)}: {self.strategy}; to change between"
                f" them: bandit{{arms={'+'.join(names)}}}"
            )
        made = strategies.catalogue(plugins).create(self.strategy)
        return made if self.seed is None else replace(made, seed=self.seed)

    def seconds(self) -> float | None:
        """The budget, if there is one.  Raises InputError where it is no duration."""
        return None if self.budget is None else parse_duration(self.budget)

    def check(self, plugins: Sequence[Path] = ()) -> None:
        """Raise what is wrong with the options before anything takes time."""
        self.chosen(plugins)
        self.seconds()
        host.check_workers(self.workers)
