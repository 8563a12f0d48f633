"""Time each kernel of an artifact, and set it against what the machine can do at most."""

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.model import Array
from hybridc.compiler.peaks import Peaks
from hybridc.compiler.session import InferenceSession
from hybridc.compiler.tables import table

_CALLS = 20
_WARMUP = 3
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

    @property
    def achieved(self) -> float:
        """FLOP/s."""
        return self.flops * self.calls / self.seconds if self.seconds else 0.0

    def roofline(self, peaks: Peaks) -> float | None:
        """Share of what the roofline allows; None where the FLOPs are not known.

        It is above 1 where a kernel waits for memory by its count, but finds its data in a cache.
        """
        if not self.flops:
            return None
        return self.achieved / peaks.attainable(self.flops, self.traffic)


@dataclass(frozen=True)
class Profile:
    """Every kernel, the most expensive first, and the peaks that they are set against."""

    kernels: tuple[KernelTime, ...]
    peaks: Peaks

    def to_json(self) -> dict[str, Any]:
        """The profile as JSON data."""
        return {
            "peak_flops": self.peaks.flops,
            "peak_bandwidth": self.peaks.bandwidth,
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
        total = sum(kernel.seconds for kernel in self.kernels)
        headers = ("kernel", "rule", "calls", "time", "share", "GFLOP/s", "of roofline")
        rows = [self._row(kernel, total) for kernel in self.kernels]
        flops, bandwidth = self.peaks.flops / 1e9, self.peaks.bandwidth / 1e9
        peak = f"peaks: {flops:.0f} GFLOP/s in fp32, {bandwidth:.1f} GB/s from memory"
        return f"{table(headers, rows)}\n{peak}; kernels together {total * 1e3:.3f} ms"

    def _row(self, kernel: KernelTime, total: float) -> tuple[str, ...]:
        roofline = kernel.roofline(self.peaks)
        return (
            kernel.kernel,
            kernel.rule,
            str(kernel.calls),
            f"{kernel.seconds * 1e3:.3f} ms",
            f"{kernel.seconds / total:.1%}" if total else "-",
            f"{kernel.achieved / 1e9:.1f}" if kernel.flops else "-",
            "-" if roofline is None else f"{roofline:.0%}",
        )


def profile(session: InferenceSession, feed: Mapping[str, Array], peaks: Peaks) -> Profile:
    """Run the model some times and take each kernel's median.

    Watching costs about a microsecond for each call of a kernel.
    """
    watch = _Watch()
    session.instrument(watch)
    runs: list[dict[str, list[float]]] = []
    for _ in range(_WARMUP + _CALLS):
        watch.durations = defaultdict(list)
        session.run(None, feed)
        runs.append(watch.durations)
    known = {entry["kernel"]: entry for entry in session.artifact.report.get("kernels", ())}
    timed = [_summarise(name, runs[_WARMUP:], known.get(name, {})) for name in runs[-1]]
    return Profile(tuple(sorted(timed, key=lambda kernel: -kernel.seconds)), peaks)


class _Watch:
    """Takes the time between the two calls that TVM makes around each kernel."""

    def __init__(self) -> None:
        self.durations: dict[str, list[float]] = defaultdict(list)
        self._started = 0.0

    def __call__(self, _func: object, name: str, before: bool, *_: object) -> int:
        now = time.perf_counter()
        if not before and not name.startswith(_RUNTIME):
            self.durations[name].append(now - self._started)
        self._started = time.perf_counter()
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
    )
