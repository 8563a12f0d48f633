"""The result of a candidate, and the limits on the time and memory that it may take."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from statistics import median
from typing import Any

import psutil

from hybridc.compiler.errors import HybridcError
from hybridc.compiler.interfaces import Point
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.processes.child import ChildError

_SPENT = ("bad_alloc", "MemoryError", "out of memory", "Cannot allocate memory")
_CLAUSE = 200  # characters of what went wrong


class MeasureError(HybridcError):
    """Nothing can be measured here: the processes do not start, or the disk is full."""


@dataclass(frozen=True)
class Limits:
    """What a candidate may take: seconds to build, seconds to run, bytes of memory."""

    build: float = 60.0
    run: float = 20.0
    memory: int = 4 * 2**30

    @classmethod
    def of_machine(cls) -> "Limits":
        """The defaults, with no more than half of the memory that is free."""
        free = int(psutil.virtual_memory().available)
        return cls(memory=min(cls.memory, free // 2))


@dataclass(frozen=True)
class CandidateResult:
    """What came of one candidate; `detail` is a clause that tells what went wrong.

    `disturbed` where other programs kept our cores busy whenever it was timed.
    """

    point: Point
    verdict: Verdict
    seconds: tuple[float, ...] = ()
    detail: str = ""
    disturbed: bool = False

    @property
    def time(self) -> float | None:
        """The median, in seconds; None for a failure."""
        return median(self.seconds) if self.verdict is Verdict.OK else None


Keep = Callable[[CandidateResult], None]


def made(
    answer: dict[str, Any] | CandidateResult, point: Any, library: Path
) -> Path | CandidateResult:
    """The library that was built, or how it failed."""
    if isinstance(answer, dict) and "error" not in answer:
        return library
    if isinstance(answer, dict) and answer["kind"] == "LinkError":
        raise MeasureError(f"a kernel could not be linked: {answer['error']}")
    found = answer if isinstance(answer, CandidateResult) else failed(answer, Verdict.REFUSED)
    library.unlink(missing_ok=True)
    return CandidateResult(point, found.verdict, (), found.detail)


def failed(answer: dict[str, Any], verdict: Verdict) -> CandidateResult:
    """What an error that a process told says of the candidate."""
    said = answer["error"]
    spent = any(word in said for word in _SPENT)
    return CandidateResult({}, Verdict.MEMORY if spent else verdict, (), said[:_CLAUSE])


def ended(error: ChildError) -> CandidateResult:
    """What a process's end says of the candidate that it was at."""
    if error.timed_out:
        return CandidateResult({}, Verdict.TIMEOUT, (), "it did not end in time")
    # The system ends with SIGKILL those that take the last of its memory.
    spent = error.code == -SIGKILL or any(word in error.said for word in _SPENT)
    return CandidateResult({}, Verdict.MEMORY if spent else Verdict.CRASH, (), str(error)[:_CLAUSE])
