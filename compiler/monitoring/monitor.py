"""Sample what the machine does while something runs, by a thread that takes little from it."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Self

from hybridc.compiler.errors import InputError
from hybridc.compiler.monitoring.monitored import Monitored, Series
from hybridc.compiler.monitors.memory import Memory
from hybridc.compiler.monitors.nvidia import Nvidia
from hybridc.compiler.monitors.processor import Processor
from hybridc.compiler.monitors.rapl import Rapl
from hybridc.compiler.monitors.source import AbsentError, Source
from hybridc.compiler.processes.process_tree import ProcessTree
from hybridc.compiler.text.units import format_duration, parse_duration

INTERVAL = "100ms"
# Of one core, what sampling may take: the thread waits until its work is no more than that.
COST = 0.01
_LEAST = 0.01  # seconds; the kernel counts CPU time in ticks of this length
_MOST = 3600.0
# Readings that are kept of a series; beyond, every second one is let go of.
_KEPT = 20_000

Make = Callable[[ProcessTree], Source]

# What is sampled: a name for people, and how it is opened for a process tree.
SOURCES: Mapping[str, Make] = MappingProxyType(
    {
        "CPU": Processor,
        "memory": Memory,
        "energy": lambda _: Rapl(),
        "GPU": lambda _: Nvidia(),
    }
)


def interval(text: str) -> float:
    """Read an interval in seconds.  Raises InputError if it is none, or out of bounds."""
    seconds = parse_duration(text)
    if not _LEAST <= seconds <= _MOST:
        bounds = f"{format_duration(_LEAST)} to {_MOST / 3600:.0f} h"
        raise InputError(f"the monitor's interval is {bounds}, not {text}")
    return seconds


class Monitor:
    """A context manager that samples from its beginning to its end.

    `seconds` lie between two readings, or more where a reading takes so long that sampling would
    cost more than `COST`.
    """

    def __init__(self, seconds: float, sources: Mapping[str, Make] = SOURCES) -> None:
        self._interval = seconds
        self._sources: dict[str, tuple[Source, list[Series]]] = {}
        self._absent: dict[str, str] = {}
        tree = ProcessTree()
        for name, make in sources.items():
            try:
                source = make(tree)
            except AbsentError as error:
                self._absent[name] = str(error)
            else:
                self._sources[name] = source, [Series(each) for each in source.channels]
        self._all = [series for _, series_of in self._sources.values() for series in series_of]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._worked = 0.0
        self._last = 0.0

    @property
    def absent(self) -> Mapping[str, str]:
        """Why a source is not there, by its name."""
        return self._absent

    def __enter__(self) -> Self:
        self._began = time.perf_counter_ns()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take a last reading and end; harmless if it has ended."""
        self._done.set()
        self._thread.join()

    def result(self) -> Monitored:
        """End, and tell what was seen."""
        self.stop()
        joules: dict[str, float] = {}
        for source, _ in self._sources.values():
            joules |= source.totals()
        return Monitored(
            series=tuple(series for series in self._all if series.values),
            absent=dict(self._absent),
            joules=joules,
            seconds=self._last,
            interval=self._interval,
            cost=self._worked / self._last if self._last else 0.0,
            began=self._began,
        )

    def _watch(self) -> None:
        """The thread: read, and wait for the next reading or the end."""
        self._sample(0.0)
        while not self._done.wait(self._pause()):
            self._sample(self._now())
        self._sample(self._now())

    def _pause(self) -> float:
        """Seconds to the next reading: by the interval, or until the work so far is cheap."""
        now = self._now()
        return max(self._last + self._interval - now, self._worked / COST - now, 0.0)

    def _sample(self, now: float) -> None:
        start = time.thread_time()
        since, self._last = now - self._last, now
        for name, (source, series) in list(self._sources.items()):
            try:
                read = source.read(since)
            except OSError as error:
                self._absent[name] = f"lost after {now:.1f} s: {error.strerror or error}"
                del self._sources[name]
            else:
                _keep(series, read, now, since)
        self._worked += time.thread_time() - start

    def _now(self) -> float:
        return (time.perf_counter_ns() - self._began) / 1e9


def _keep(series: Sequence[Series], read: Sequence[float | None], now: float, since: float) -> None:
    for each, value in zip(series, read, strict=True):
        if value is not None:
            each.add(now, value, since)
        if len(each.times) > _KEPT:
            each.thin()
