"""Combine the times of a candidate that was measured at several moments.

A guest of a hypervisor may share a physical core with another, or its own two cores may be the two
threads of one, for a second or so: what is computed meanwhile takes up to twice its time, though
nothing in the guest shows it.  Such disturbances only ever add time.  A candidate is therefore
timed at several moments, and where they disagree, the faster ones count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hybridc.compiler.interfaces import Point
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.tuning.candidates.outcome import CandidateResult, Keep

ENOUGH = 2  # passes at the machine's usual pace
MOST = 4  # passes at any pace
_AGREE = 0.03  # medians of one state of the machine lie within this share of each other
# More than a disturbance makes of the incumbent.
_BEYOND = 2.2


def dropped(taken: Sequence[CandidateResult], incumbent: float | None) -> bool:
    """Whether a candidate has failed, or lost to the incumbent whatever disturbed it."""
    if any(result.verdict is not Verdict.OK for result in taken):
        return True
    times = [result.time for result in taken if result.time]
    return bool(times) and incumbent is not None and min(times) > _BEYOND * incumbent


def agreed(taken: Sequence[CandidateResult]) -> bool:
    """Whether the two fastest times agree, or there were as many passes as there may be."""
    times = sorted(result.time for result in taken if result.time)
    if len(taken) >= MOST:
        return True
    return len(times) >= ENOUGH and times[1] <= (1 + _AGREE) * times[0]


def combined(taken: Sequence[CandidateResult]) -> CandidateResult:
    """One result of all passes: a failure, or the samples of those that agree with the fastest."""
    for result in taken:
        if result.verdict is not Verdict.OK:
            return result
    best = min(result.time for result in taken if result.time)
    fast = [result for result in taken if result.time and result.time <= (1 + _AGREE) * best]
    samples = tuple(sample for result in fast for sample in result.seconds)
    return replace(fast[0], seconds=samples, disturbed=all(r.disturbed for r in fast))


def deliver(
    built: Sequence[tuple[Point, Path]], found: Mapping[Path, Sequence[CandidateResult]], keep: Keep
) -> None:
    """Keep what was found of each candidate, and remove its library."""
    for point, library in built:
        library.unlink(missing_ok=True)
        if found[library]:
            keep(replace(combined(found[library]), point=point))
