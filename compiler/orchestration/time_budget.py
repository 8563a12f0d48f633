"""The time that a compilation may take, and how it is shared."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from hybridc.compiler.errors import InputError
from hybridc.compiler.text.units import format_duration


class OutOfTimeError(InputError):
    """The budget is used up; the results until then remain."""

    def too_short(self) -> "OutOfTimeError":
        """The same error if there is no result yet."""
        return OutOfTimeError(f"{self}: it is too short for one stage, and nothing was written")


def at_leisure(_: str) -> None:
    """Check nothing: there is no time limit."""


class _Ended(BaseException):
    """Ends user code; not an Exception, so no `except Exception` in that code stops it."""


@dataclass
class TimeBudget:
    """A budget in seconds, None if unlimited; `weights` are those of components or levels."""

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
        """Seconds until the end, at least 0; None if unlimited."""
        return None if self.seconds is None else max(0.0, self.seconds - self.spent)

    def allowance(self, name: str, pending: Iterable[str]) -> float | None:
        """The share of the remaining time that `name` gets beside all of `pending`.

        So what others did not use is shared by those that are still to come.
        """
        if (left := self.left) is None:
            return None
        wanting = {name, *pending}
        total = sum(self.weights.get(each, 0.0) for each in wanting)
        return left * self.weights.get(name, 0.0) / total if total else left / len(wanting)

    def check(self, step: str) -> None:
        """Raise OutOfTimeError if the budget is used up before `step` begins."""
        if self.left == 0.0:
            assert self.seconds is not None
            raise OutOfTimeError(
                f"the budget of {format_duration(self.seconds)} ends before {step}"
            )


@contextlib.contextmanager
def ending(seconds: float | None, told: str) -> Generator[None]:
    """Raise OutOfTimeError, with the message `told`, if the body takes longer.

    For user code, which does not check the time itself.  None is no limit.  Only the main thread
    can be interrupted, between two Python bytecodes; in other threads there is no limit.
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
