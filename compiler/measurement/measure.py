"""Time a call: warm up, repeat until the time is used, and say how much the samples scatter."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridc.compiler.assurance import confidence
from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.measurement.conditions import Conditions
from hybridc.compiler.text.units import format_duration

# Medians of fewer samples move with every single outlier.
MIN_SAMPLES = 5
MAX_SAMPLES = 10_000
# Seconds that fast calls are made for at the least.  10 000 calls of 5 us take 50 ms: interrupts
# and other guests of a hypervisor take as long, and would pass for the machine's pace.
_FAST = 0.2
# Parts of the samples that are compared with each other, to see the machine's phases.
_PHASES = 5


@dataclass(frozen=True)
class Samples:
    """Durations of one call, in seconds, in the order in which they were taken.

    `conditions` tell what else the machine did meanwhile, where anybody watched it.  The bounds of
    what they say of time hold at `level`.
    """

    seconds: tuple[float, ...]
    conditions: Conditions | None = None
    level: float = confidence.LEVEL

    @property
    def median(self) -> float:
        """The middle duration."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The durations that a quarter and three quarters of the samples stay below."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return first, third

    @property
    def spread(self) -> float:
        """Interquartile range over the median: 0.02 says that half of the samples lie in 2 %."""
        first, third = self.quartiles
        return (third - first) / self.median if self.median else 0.0

    def percentile(self, percent: float) -> Estimate:
        """The duration that so many percent of the calls stay below.

        A machine has slower and faster phases, so the bounds also reach as far as the medians of
        the fifths of the time do from the median of all.
        """
        found = confidence.quantile(self.seconds, percent / 100, self.level)
        size = len(self.seconds) // _PHASES
        if not size:
            return found
        phases = [statistics.median(self.seconds[i * size :][:size]) for i in range(_PHASES)]
        low, high = min(phases) / self.median, max(phases) / self.median
        value = found.value
        return Estimate(value, min(found.low, value * low), max(found.high, value * high))

    @property
    def throughput(self) -> Estimate:
        """Calls per second, one after another."""
        count = len(self.seconds)
        sums = np.stack([np.ones(count), np.array(self.seconds)], axis=1)
        found = confidence.resampled(sums, lambda total: total[..., 0] / total[..., 1])
        return found.at(self.level)

    def to_json(self) -> dict[str, Any]:
        """Summarise for reports; times in milliseconds."""
        first, third = self.quartiles
        return {
            "median_ms": self.median * 1e3,
            "first_quartile_ms": first * 1e3,
            "third_quartile_ms": third * 1e3,
            "spread": self.spread,
            "samples": len(self.seconds),
            **({"conditions": self.conditions.to_json()} if self.conditions else {}),
        }

    @property
    def disturbed(self) -> str:
        """What may have made calls slower than they are; nothing that anybody knows of."""
        return self.conditions.text() if self.conditions else ""

    def text(self) -> str:
        """`4.21 ms (half of 37 calls within 1.2 %)`, and what disturbed them."""
        count, other = len(self.seconds), f", while {self.disturbed}" if self.disturbed else ""
        time = format_duration(self.median)
        return f"{time} (half of {count} calls within {self.spread:.1%}){other}"


def latency(  # noqa: PLR0913 - when to begin, when to stop
    call: Callable[[], object],
    *,
    seconds: float = 1.0,
    warmup: float = 0.2,
    at_least: int = MIN_SAMPLES,
    at_most: int = MAX_SAMPLES,
    clear: Callable[[Samples], bool] = lambda _: True,
    patience: float = 10.0,
    longest: float = math.inf,
) -> Samples:
    """Call again and again for `seconds`, after `warmup` seconds of calls that are not counted.

    A slow call is still made `at_least` times.  A fast one is made until there are `at_most`
    durations, and for `_FAST` seconds at the least.  As long as the samples are not `clear` this is
    done again, `patience` times altogether: that takes a fast call `patience` times as long, and
    none longer than `patience` times `seconds` unless it is slow.  After the `longest` that may be,
    a slow call is made `MIN_SAMPLES` times and no more.  Of all durations `at_most` are kept, or
    `at_least` where those are more, evenly from the first to the last.
    """
    last, most = time.perf_counter() + longest, max(at_least, at_most)
    _repeat(call, min(warmup, longest), 1, most)
    durations = _repeat(call, seconds, at_least, most, last)
    for _ in range(round(patience) - 1):
        if clear(Samples(_thinned(durations, most))) or time.perf_counter() >= last:
            break
        durations += _repeat(call, seconds, MIN_SAMPLES, most, last)
    return Samples(_thinned(durations, most))


def in_turns(
    calls: Sequence[Callable[[], object]], *, seconds: float = 2.0, turn: float = 0.05
) -> list[tuple[float, ...]]:
    """Durations of several calls, which take turns of at least `turn` seconds for `seconds` in all.

    What slows the machine for a while slows all of them alike, so their medians can be compared
    where measurements one after the other cannot.  A first turn of each is not counted.
    """
    found: list[tuple[float, ...]] = [()] * len(calls)
    for call in calls:
        _repeat(call, turn, 1, MAX_SAMPLES)
    end = time.perf_counter() + seconds
    while min(map(len, found)) < MIN_SAMPLES or time.perf_counter() < end:
        found = [
            durations + _repeat(call, turn, 1, MAX_SAMPLES)
            for durations, call in zip(found, calls, strict=True)
        ]
    return found


def _repeat(
    call: Callable[[], object], seconds: float, at_least: int, at_most: int, last: float = math.inf
) -> tuple[float, ...]:
    durations: list[float] = []
    begin = time.perf_counter()
    end = min(begin + seconds, last)
    enough = min(begin + _FAST, end)
    while True:
        start = time.perf_counter()
        if len(durations) >= at_most and start >= enough:
            break
        wanted = at_least if start < last else min(at_least, MIN_SAMPLES)
        if len(durations) >= wanted and start >= end:
            break
        call()
        durations.append(time.perf_counter() - start)
    return _thinned(durations, at_most)


def _thinned(durations: Sequence[float], at_most: int) -> tuple[float, ...]:
    """So many of them as may be, evenly from the first to the last."""
    if len(durations) <= at_most:
        return tuple(durations)
    return tuple(durations[i * len(durations) // at_most] for i in range(at_most))
