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


class MonitoringOptions(Protocol):
    """What to monitor, and who is told what the machine lacks."""

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
class Monitoring:
    """The options by themselves, for work that has no others."""

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


def check(options: MonitoringOptions) -> None:
    """Raise InputError if an option is wrong, before anything takes time."""
    interval(options.monitor_interval)
    if options.trace is not None:
        trace.check(options.trace)


@contextmanager
def observed(options: MonitoringOptions) -> Generator[Observer]:
    """Watch what is done within; the trace is written whatever becomes of it."""
    check(options)
    seen = Observer()
    if options.monitor:
        seen.monitor = Monitor(interval(options.monitor_interval))
        for name, why in seen.monitor.absent.items():
            options.progress(f"not monitored: {name}: {why}")
        seen.monitor.__enter__()
    try:
        yield seen
    finally:
        monitored = seen.monitored()
        if options.trace is not None:
            trace.write(options.trace, seen.timeline, monitored)


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
