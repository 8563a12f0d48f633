"""What tuning is expected to gain, from what it gained on the kernels that a log knows."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, median, stdev

from hybridc.compiler.anatomy.work import Operator
from hybridc.compiler.errors import LogError
from hybridc.compiler.log import access
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.orchestration.expected_gains.gains import Gain
from hybridc.compiler.target import Target

_FEW = 3  # kernels in a log, from which on their gains say something of others


def by_log(found: Sequence[Operator], target: Target, url: str | None = None) -> Gain | str:
    """The gain of tuning by a log, or why it says nothing.

    The mean over so many kernels as matter in the model is predicted: their gains are taken to be
    drawn from those of the log.  Raises LogError if a log that is named cannot be read.
    """
    if url is None and not access.default_exists():
        return "there is no tuning log"
    from hybridc.compiler.log import keys

    try:
        with access.open_log(url, readonly=True) as log:
            gains = _gains(log.records(target=keys.of_target(target).key))
    except LogError as error:
        if url is not None:
            raise
        return str(error)
    if len(gains) < _FEW:
        return f"the tuning log has {len(gains)} tuned kernels for this target; {_FEW} are needed"
    spread = stdev(gains) * math.sqrt(1 / _distinct(found) + 1 / len(gains))
    return Gain(fmean(gains), spread, f"{len(gains)} kernels of the tuning log")


def _gains(records: Iterable[Record]) -> list[float]:
    """The log-speedup of each kernel's best point over the first, which a tuner makes the default.

    Kernels of which one point was measured were not tuned.
    """
    series: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for record in records:
        if record.verdict is Verdict.OK:
            key = (record.workload, record.toolchain, record.mode)
            choice = f"{record.rule} {sorted(record.point.items())} {record.trace}"
            series.setdefault(key, {}).setdefault(choice, []).extend(record.seconds)
    times = [[median(samples) for samples in points.values()] for points in series.values()]
    return [math.log(each[0] / min(each)) for each in times if len(each) > 1]


def _distinct(found: Sequence[Operator]) -> float:
    """How many operators matter: the inverse of the sum of their squared shares of the FLOPs."""
    total = sum(each.flops for each in found)
    return 1 / sum((each.flops / total) ** 2 for each in found) if total else 1.0
