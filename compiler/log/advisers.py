"""Where a compilation takes known schedules from: a lock, a tuning log, or nowhere."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from hybridc.compiler import pipeline, settings
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import LogError, MissingRecordError
from hybridc.compiler.interfaces import Advice, Point, Usable
from hybridc.compiler.kernel_record import Alternatives
from hybridc.compiler.log import access, keys, lock
from hybridc.compiler.log.urls import hidden
from hybridc.compiler.orchestration import precisions
from hybridc.compiler.target import Target


class Adviser(Advice, Protocol):
    """Advice that can also report what it knew."""

    def check(self) -> None:
        """Raise MissingRecordError if a required choice is missing."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What was found, as JSON data."""
        ...


MakeAdviser = Callable[[Target], Adviser | None]


def as_locked(options: Options) -> Options:
    """The options in the precision of the artifact that their lock is of, where they leave it open.

    A pipeline that lowers precision itself says which one.
    """
    if options.lock is None or options.dtype != precisions.AUTO:
        return options
    own = pipeline.parse(plans.pipeline_of(options), pipeline.passes(options.plugins))
    found = lock.precision(options.lock, options.plugins)
    if found is None or precisions.of_steps(own) != precisions.FULL:
        return options
    return replace(options, dtype=found[0], precise=found[1])


@contextmanager
def adviser(options: Options) -> Generator[MakeAdviser]:
    """Open the lock or log that the options name, and give a function from target to adviser.

    Raises LogError if a log that is named cannot be read; an unreadable default log is ignored.
    """
    if options.lock is not None:
        locked = lock.read(options.lock)
        yield lambda target: locked.on(target, options.near)
    elif options.log is None and options.tuning is None and not access.default_exists():
        if options.frozen:
            missing = hidden(settings.log_url())
            raise MissingRecordError(f"frozen, but there is no tuning log {missing}")
        yield lambda _: None
    else:
        with _from_log(options) as make:
            yield make


@contextmanager
def _from_log(options: Options) -> Generator[MakeAdviser]:
    from hybridc.compiler.log.advice import LogAdvice  # SQLAlchemy takes its time

    if options.tuning is not None:  # there will be something to read by then
        access.open_log(options.log, plugins=tuple(options.plugins)).close()
    try:
        opened = access.open_log(options.log, readonly=True, plugins=tuple(options.plugins))
    except LogError as error:
        if options.log is not None or options.frozen:
            raise
        fault = str(error)
        yield lambda _: _Unreadable(fault)
        return
    with opened:
        yield lambda target: LogAdvice(
            opened, keys.of_target(target), keys.of_toolchain(), options.near, options.frozen
        )


class NoAdvice:
    """Advice that knows nothing: a base for classes that know something."""

    def choose(
        self, kernel: str, workload: str, usable: Usable, mode: str
    ) -> tuple[str, Point] | None:
        """None: no point is known."""

    def missed(self, kernel: str) -> None:
        """Ignore it: no point was expected."""

    def fault(self, workload: str, rule: str, point: Point) -> str | None:
        """None: no failure is known."""

    def library(self, workload: str) -> str | None:
        """None: no backend is decided."""

    def fastest(self, among: Alternatives) -> int | None:
        """None: no time is known."""


@dataclass(frozen=True)
class _Unreadable(NoAdvice):
    """A default log that cannot be read, which does not keep anybody from compiling."""

    reason: str

    def check(self) -> None:
        """Demand nothing."""

    def describe(self) -> Mapping[str, Any]:
        """Say why."""
        return {"fault": self.reason}
