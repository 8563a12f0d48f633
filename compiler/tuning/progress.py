"""The progress of a tuning, reported after each trial."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Update:
    """How things stand: told after each trial, and when a kernel's default was measured.

    `gain` is the time of all kernels at their defaults over that at their best; `best` is that of
    the kernel that the trial was for, in seconds.
    """

    kernel: str
    measured: int
    done: int
    trials: int
    best: float | None
    gain: float
    seconds: float

    @property
    def rest(self) -> int:
        """Trials to come."""
        return max(0, self.trials - self.done)

    @property
    def left(self) -> float | None:
        """Seconds until all trials are done, at the pace so far; an early stop comes before."""
        pace = self.seconds / self.measured if self.measured else None
        return None if pace is None else pace * self.rest


class Progress(Protocol):
    """Is told each update."""

    def __call__(self, update: Update, /) -> None:
        """See how things stand."""
