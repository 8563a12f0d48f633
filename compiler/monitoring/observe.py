"""Watch a piece of work as its options ask for it: a timeline always, a monitor and a trace."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from hybridc.compiler.measurement.clock import Progress
from hybridc.compiler.monitoring import trace
from hybridc.compiler.monitoring.monitor import INTERVAL, Monitor, interval
from hybridc.compiler.monitoring.monitored import Mark, Monitored
from hybridc.compiler.monitoring.timeline import Timeline


class Wishes(Protocol):
    """What is to be watched, and who is told what is not there."""

    @property
    def monitor(self) -> bool:
        """Whether to sample the machine."""
        ...

    @property
    def monitor_interval(self) -> str:
        """Between two samples."""
        ...

    @property
    def trace(self) -> Path | None:
        """Where to write a trace."""
        ...

    @property
    def progress(self) -> Progress:
        """Who is told."""
        ...


@dataclass(frozen=True)
class Watch:
    """Wishes on their own, for work that has no other options."""

    monitor: bool = False
    monitor_interval: str = INTERVAL
    trace: Path | None = None
    progress: Progress = lambda _: None


@dataclass
class Observer:
    """A timeline to write on, and what the monitor saw once the work is done."""

    timeline: Timeline = field(default_factory=Timeline)
    monitor: Monitor | None = None
    _seen: Monitored | None = None

    def monitored(self) -> Monitored | None:
        """End monitoring, and tell what was seen; None if nobody asked for it."""
        if self.monitor is not None and self._seen is None:
            found = self.monitor.result()
            marks = _marks(self.timeline, found.began)
            self._seen = replace(found, marks=marks)
        return self._seen


def check(wishes: Wishes) -> None:
    """Raise InputError if what is wished cannot be done, before anything takes time."""
    interval(wishes.monitor_interval)
    if wishes.trace is not None:
        trace.check(wishes.trace)


@contextmanager
def observed(wishes: Wishes) -> Generator[Observer]:
    """Watch what is done within; the trace is written whatever becomes of it."""
    check(wishes)
    seen = Observer()
    if wishes.monitor:
        seen.monitor = Monitor(interval(wishes.monitor_interval))
        for name, why in seen.monitor.absent.items():
            wishes.progress(f"not monitored: {name}: {why}")
        seen.monitor.__enter__()
    try:
        yield seen
    finally:
        monitored = seen.monitored()
        if wishes.trace is not None:
            trace.write(wishes.trace, seen.timeline, monitored)


def _marks(timeline: Timeline, began: int) -> tuple[Mark, ...]:
    """The stages in their order, and passes that follow each other as one mark."""
    marks: list[Mark] = []
    for span in sorted(timeline.spans, key=lambda span: span.start):
        if span.kind not in ("stage", "pass"):
            continue
        name = "passes" if span.kind == "pass" else span.name
        start, end = (span.start - began) / 1e9, (span.end - began) / 1e9
        if marks and name == "passes" == marks[-1].name:
            start = marks.pop().start
        marks.append(Mark(name, start, end))
    return tuple(marks)
