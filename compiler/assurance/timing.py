"""Time an artifact's calls until its limits are kept or broken beyond doubt.

What disturbs a measurement only adds time.  So a limit that is kept while other programs run is
kept.  One that is not, although some calls were fast enough, is measured again, and so are calls
of which most took much longer than the fastest, since stages are compared by them.  Of all
measurements that one stands in which the machine was disturbed least, whatever came of it.  All
looks share the error that is allowed (see `looks`).
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace

from hybridc.compiler.assurance import confidence, looks
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.hardware import load
from hybridc.compiler.measurement import conditions, measure
from hybridc.compiler.measurement.conditions import Watch
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.model import Feed
from hybridc.compiler.runtime.session import InferenceSession

_PATIENCE = 10.0  # seconds in which a limit is to become clear
# Measurements that are made anew on a machine that was disturbed, and seconds that each of them
# waits for other programs to end.
_AGAIN, _WAIT = 2, 5.0
# Of a budget that is left, after which nothing is measured anew: other stages want some of it too.
_SHARE = 0.25
# Half of the calls take longer than so many times the fastest: none does by its own doing.  On a
# quiet machine nine of ten calls are within 1.08 of the median; beside a program that takes half a
# core the median is 1.05 times as long, beside a whole core twice (benchmarks/disturbance.py).
_BLURRED = 1.5
# Percentiles from this one on are made of the calls that anything else makes late first.
_LATE = 90.0


def timed(
    session: InferenceSession,
    feed: Feed,
    contract: Contract,
    left: float | None = None,
    before: int = 0,
) -> Samples:
    """Time calls on one feed, for the limits on time; `left` are the seconds of a budget.

    With the samples comes what disturbed them, if anything did.  `before` are the measurements that
    may have been made of the same calls for the same limits (see `looks`).
    """
    start = time.perf_counter()
    end = start + (math.inf if left is None else left)
    found = _once(session, feed, contract, left, before)
    for number in range(before + 1, before + 1 + _AGAIN):
        now = time.perf_counter()
        room = end - now
        if room <= 0 or now - start > _SHARE * (end - start) or not _doubtful(found, contract):
            break
        conditions.wait(session.threads, min(_WAIT, room), bearable(contract))
        rest = None if left is None else max(0.0, end - time.perf_counter())
        found = min(found, _once(session, feed, contract, rest, number), key=_disturbance)
    return found


def bearable(contract: Contract) -> float:
    """Cores that others may keep busy while calls are timed for the limits of a contract.

    Fewer for late calls, and for throughput, a mean: these are late where medians are not yet.
    """
    late = contract.max_latency is not None and contract.latency_percentile >= _LATE
    return load.QUIET_FOR_ALL if late or contract.min_throughput is not None else load.QUIET


def _once(
    session: InferenceSession, feed: Feed, contract: Contract, left: float | None, number: int
) -> Samples:
    """Time calls until the limits are kept or broken beyond doubt, or patience or time ends."""
    watch = Watch(session.threads, bearable(contract))
    looked = _Looks(contract, watch, looks.levels(number))
    share = contract.latency_percentile / 100
    samples = measure.latency(
        lambda: session.run(None, feed),
        at_least=max(measure.MIN_SAMPLES, confidence.values_for_quantile(share, looked.level)),
        clear=looked.clear,
        patience=_PATIENCE if left is None else min(_PATIENCE, max(1.0, left)),
        longest=math.inf if left is None else max(1.0, left),
    )
    return Samples(samples.seconds, watch.conditions(), looked.level)


class _Looks:
    """Looks at calls while they are timed; `level` is that of the last look, or of the next."""

    def __init__(self, contract: Contract, watch: Watch, levels: Iterator[float]) -> None:
        self._contract, self._watch, self._levels = contract, watch, levels
        self.level = next(levels)

    def clear(self, samples: Samples) -> bool:
        """Whether the limits are kept or broken beyond doubt."""
        self._watch.glance()
        sure, contract = replace(samples, level=self.level), self._contract
        latency, most = sure.percentile(contract.latency_percentile), contract.max_latency
        least = contract.min_throughput
        clear = (most is None or not latency.low <= most < latency.high) and (
            least is None or not sure.throughput.low < least <= sure.throughput.high
        )
        if not clear:
            self.level = next(self._levels)
        return clear


def _doubtful(samples: Samples, contract: Contract) -> bool:
    """Whether times were disturbed so that they say nothing of a limit, or of the artifact.

    A limit that is kept for all that is no matter of doubt.
    """
    if not samples.disturbed:
        return False
    most, least = contract.max_latency, contract.min_throughput
    late = most is not None and samples.percentile(contract.latency_percentile).high > most
    few = least is not None and samples.throughput.low < least
    if contract.timed and not (late or few):
        return False
    fastest = min(samples.seconds)
    within = (late and fastest <= (most or 0.0)) or (few and (least or 0.0) * fastest <= 1)
    return within or samples.median > _BLURRED * fastest


def _disturbance(samples: Samples) -> tuple[bool, float, float]:
    found = samples.conditions
    return (not found.quiet, found.busy, found.drift) if found else (False, 0.0, 1.0)
