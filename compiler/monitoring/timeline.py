"""What happened when, and in which process: spans of time, which a trace shows and a report marks.

A span that is open while another begins holds it whole, since spans are opened and closed by
`with`.  What other processes do is told by their parent, from a request to its answer.
"""

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Span:
    """One thing that was done: `start` and `end` in nanoseconds of `time.perf_counter_ns`.

    `kind` groups spans (stage, pass, kernel, build, measure), `process` is who did it, and `facts`
    are JSON data about it.
    """

    name: str
    kind: str
    start: int
    end: int
    process: int
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end - self.start) / 1e9


@dataclass
class Timeline:
    """Collects spans as they end; `processes` names those that take part, this one first."""

    spans: list[Span] = field(default_factory=list[Span])
    processes: dict[int, str] = field(default_factory=lambda: {os.getpid(): "hybridc"})
    start: int = field(default_factory=time.perf_counter_ns)

    @contextmanager
    def span(self, name: str, kind: str, **facts: Any) -> Generator[dict[str, Any]]:
        """Time what is done within; facts that are known only later go into what this gives.

        What ends with an exception is kept too, with the exception's name as the fact `raised`.
        """
        start = time.perf_counter_ns()
        try:
            yield facts
        except BaseException as error:
            facts["raised"] = type(error).__name__
            raise
        finally:
            end = time.perf_counter_ns()
            self.spans.append(Span(name, kind, start, end, os.getpid(), facts))

    def add(self, name: str, kind: str, start: int, end: int, process: int, **facts: Any) -> None:
        """Keep what another process did; a process does one thing at a time."""
        self.spans.append(Span(name, kind, start, end, process, facts))
