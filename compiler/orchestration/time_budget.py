"""The time that a compilation may take, and who gets how much of it."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from hybridc.compiler.errors import InputError
from hybridc.compiler.units import format_duration


class OutOfTimeError(InputError):
    """The budget is used up; what was reached until then stands."""

    def too_short(self) -> "OutOfTimeError":
        """The same where nothing was reached."""
        return OutOfTimeError(f"{self}: it is too short for one stage, and nothing was written")


def at_leisure(_: str) -> None:
    """Check nothing: for what may take any time."""


class _Ended(BaseException):
    """What ends code of others: no `except Exception` of theirs holds it up."""


@dataclass
class TimeBudget:
    """A budget in seconds, None for no end; `weights` are those of components or levels."""

    seconds: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._start = self.now()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return self.now() - self._start

    @property
    def left(self) -> float | None:
        """Seconds until the end, none below 0; None where there is no end."""
        return None if self.seconds is None else max(0.0, self.seconds - self.spent)

    def allowance(self, name: str, pending: Iterable[str]) -> float | None:
        """The share of what is left that goes to `name`, where all of `pending` want some.

        What others did not use is thereby shared by those that are still to come.
        """
        if (left := self.left) is None:
            return None
        wanting = {name, *pending}
        total = sum(self.weights.get(each, 0.0) for each in wanting)
        return left * self.weights.get(name, 0.0) / total if total else left / len(wanting)

    def check(self, step: str) -> None:
        """Raise OutOfTimeError where the budget is used up and `step` would only begin."""
        if self.left == 0.0:
            assert self.seconds is not None
            raise OutOfTimeError(
                f"the budget of {format_duration(self.seconds)} ends before {step}"
            )


@contextlib.contextmanager
def ending(seconds: float | None, told: str) -> Generator[None]:
    """Raise OutOfTimeError, with what is `told`, in what is done within and takes longer.

    It is for code of others, which never asks for the time.  None is no end.  Only the main thread
    can be interrupted, between two steps of Python; elsewhere nothing ends.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> NoReturn:
        raise _Ended

    before = signal.signal(signal.SIGALRM, end)
    # Once more each second, for code that swallows the first.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 1.0)
    try:
        yield
    except _Ended:
        raise OutOfTimeError(told) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
