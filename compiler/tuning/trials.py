"""A kernel's records in the log as the trials of a search: one for each point."""

from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import median

from hybridc.compiler.interfaces import Trial
from hybridc.compiler.log import winner
from hybridc.compiler.log.record import Record, Verdict


def history(records: Iterable[Record], rule: str, mode: str) -> list[Trial]:
    """The points that records of a kernel tell of, in the order in which each came first.

    A point has the median of its samples, without those of visits that were disturbed or lucky, as
    in a look-up; one that ever failed counts as failed.
    """
    visits: dict[tuple[tuple[str, int], ...], list[Sequence[float]]] = {}
    failed: set[tuple[tuple[str, int], ...]] = set()
    for record in records:
        alike = record.rule == rule and record.mode == mode
        if not alike or record.verdict is Verdict.UNCHECKED:
            continue
        point = tuple(record.point.items())
        taken = visits.setdefault(point, [])
        if record.verdict is Verdict.OK:
            taken.append(record.seconds)
        else:
            failed.add(point)
    return [
        Trial(dict(point), None if point in failed else _middle(taken))
        for point, taken in visits.items()
    ]


def _middle(visits: Sequence[Sequence[float]]) -> float:
    """Seconds of a point that was visited so often."""
    return median(chain.from_iterable(winner.believed(visits, median)))
