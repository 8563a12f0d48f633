"""Time each kernel of an artifact, and set it against what the machine can do at most."""

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridc.compiler import target
from hybridc.compiler.artifacts.artifact import REGION_RUNTIME
from hybridc.compiler.delegation.regions import PREFIX
from hybridc.compiler.hardware import peaks
from hybridc.compiler.hardware.peaks import Peaks
from hybridc.compiler.model import Array, random_feed
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.text.tables import table
from hybridc.compiler.text.units import format_duration, format_durations

CALLS = 20  # of the model, for one profile
# Seconds and calls that do not count.  Until a process has been busy for a while, a kernel may keep
# its threads on one processor (measured: 0.2 s of a virtual machine, at half the speed).
WARMUP = 0.4
_WARMUP_CALLS = 3
_RUNTIME = "vm."  # the virtual machine's own helpers: allocation, shape checks


@dataclass(frozen=True)
class KernelTime:
    """One kernel: its calls in one run of the model, and the seconds of all of them (median).

    `flops` and `traffic` (bytes) are of one call, 0 where the report does not tell them.
    """

    kernel: str
    rule: str
    calls: int
    seconds: float
    flops: int
    traffic: int
    precision: str = "fp32"

    @property
    def achieved(self) -> float:
        """FLOP/s."""
        return self.flops * self.calls / self.seconds if self.seconds else 0.0

    def roofline(self, most: Peaks) -> float | None:
        """Share of what the roofline allows; None if neither FLOPs nor bytes are known.

        It is above 1 where a kernel waits for memory by its count, but finds its data in a cache.
        """
        if not (self.flops or self.traffic) or not self.seconds:
            return None
        return self.limit(most) / self.seconds

    def limit(self, most: Peaks) -> float:
        """Seconds that all calls take at least, by the roofline of the kernel's precision.

        S. Williams, A. Waterman, D. Patterson: Roofline, CACM 52(4), 2009.
        """
        arithmetic = self.flops / most.rate(self.precision)
        return self.calls * max(arithmetic, self.traffic / most.bandwidth)


@dataclass(frozen=True)
class Profile:
    """Every kernel, the most expensive first, and the peaks that they are set against."""

    kernels: tuple[KernelTime, ...]
    peaks: Peaks

    @property
    def seconds(self) -> float:
        """Of all kernels together."""
        return sum(kernel.seconds for kernel in self.kernels)

    @property
    def limit(self) -> float:
        """Seconds that all kernels together take at least, by the roofline.

        A kernel that is faster, since its data lay in a cache, counts with what it took.
        """
        return sum(min(kernel.limit(self.peaks), kernel.seconds) for kernel in self.kernels)

    def to_json(self) -> dict[str, Any]:
        """The profile as JSON data."""
        return {
            "peak_flops": self.peaks.flops,
            "peak_bandwidth": self.peaks.bandwidth,
            "seconds": self.seconds,
            "limit": self.limit,
            "kernels": [
                {
                    **vars(kernel),
                    "achieved_flops": kernel.achieved,
                    "roofline_share": kernel.roofline(self.peaks),
                }
                for kernel in self.kernels
            ],
        }

    def text(self) -> str:
        """The profile as a table."""
        total = self.seconds
        headers = ("kernel", "rule", "calls", "time", "share", "GFLOP/s", "of roofline")
        times = format_durations([kernel.seconds for kernel in self.kernels])
        rows = [self._row(*each, total) for each in zip(self.kernels, times, strict=True)]
        share = f"; {self.limit / total:.0%} of it at the roofline" if total else ""
        together = f"kernels together {format_duration(total)}{share}"
        return f"{table(headers, rows)}\npeaks: {self.peaks.text()}; {together}"

    def _row(self, kernel: KernelTime, time: str, total: float) -> tuple[str, ...]:
        roofline = kernel.roofline(self.peaks)
        return (
            kernel.kernel,
            kernel.rule,
            str(kernel.calls),
            time,
            f"{kernel.seconds / total:.1%}" if total else "-",
            f"{kernel.achieved / 1e9:.1f}" if kernel.flops else "-",
            "-" if roofline is None else f"{roofline:.0%}",
        )


def profile(session: InferenceSession, feed: Mapping[str, Array], most: Peaks) -> Profile:
    """Time the kernels of a session, to be set against these peaks."""
    return Profile(kernels(session, feed), most)


def kernels(session: InferenceSession, feed: Mapping[str, Array]) -> tuple[KernelTime, ...]:
    """Run the model some times and take each kernel's median, the most expensive first.

    Watching costs about a microsecond for each call of a kernel.
    """
    watch = Watch(session)
    end, called = time.monotonic() + WARMUP, 0
    while called < _WARMUP_CALLS or time.monotonic() < end:
        watch.run(feed)
        called += 1
    runs = [watch.run(feed) for _ in range(CALLS)]
    known = {entry["kernel"]: entry for entry in session.artifact.report.get("kernels", ())}
    known |= {region.name: {"rule": REGION_RUNTIME} for region in session.artifact.regions}
    timed = [_summarise(name, runs, known.get(name, {})) for name in runs[-1]]
    return tuple(sorted(timed, key=lambda kernel: -kernel.seconds))


def on_this_host(session: InferenceSession, threads: int) -> Profile:
    """Profile a session on random inputs, against the peaks of this machine or its GPU."""
    feed, here = random_feed(session.artifact.inputs), target.described(session.artifact.target)
    most = peaks.of_gpu(here.gpu) if here.gpu else peaks.peaks(target.parse("cpu", threads))
    return profile(session, feed, most)


class Watch:
    """Takes the time between the two calls that TVM makes around each kernel of a session."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._clock = session.clock
        self._marks: list[tuple[str, Any, Any]] = []
        self._started: Any = None
        session.instrument(self)

    def run(self, feed: Mapping[str, Array]) -> dict[str, list[float]]:
        """Run the model once; the seconds of each call of a kernel, by the kernel's name."""
        self._marks.clear()
        self._session.run(None, feed)
        durations: dict[str, list[float]] = defaultdict(list)
        with self._clock.working():
            for name, start, end in self._marks:
                durations[name].append(self._clock.seconds(start, end))
        return durations

    def __call__(self, _func: object, name: str, before: bool, *_: object) -> int:
        """Take the time; this is what the session calls."""
        if before:
            self._started = self._clock.mark()
        elif not name.startswith(_RUNTIME):
            self._marks.append((name.removeprefix(PREFIX), self._started, self._clock.mark()))
        return 0


def _summarise(
    name: str, runs: Sequence[Mapping[str, list[float]]], known: Mapping[str, Any]
) -> KernelTime:
    return KernelTime(
        kernel=name,
        rule=str(known.get("rule", "-")),
        calls=len(runs[-1][name]),
        seconds=statistics.median(sum(run[name]) for run in runs),
        flops=int(known.get("flops", 0)),
        traffic=int(known.get("bytes", 0)),
        precision=str(known.get("precision", "fp32")),
    )
