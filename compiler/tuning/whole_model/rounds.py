"""Compare points by times that were taken in rounds, in each of which every point had its turn."""

from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import fmean, median
from typing import TypeVar

CALLS = 3  # of a version in a row; one before finds the caches as another version left them

Origin = tuple[str, float]  # who timed, and when: the same in all records of one tuning
Timed = Mapping[Origin, Sequence[float]]  # a point's seconds, call by call
_Point = TypeVar("_Point")


def ratio(timed: Mapping[_Point, Timed], default: _Point) -> float:
    """What the fastest point takes, the default as 1, by times that did not choose it.

    Every other round chooses, and those between tell; then the other way round.  A round's times
    are compared with each other, since what disturbs the machine lasts for some of its calls.  The
    rounds of two tunings have nothing in common: where none timed both, medians are compared.
    """
    halves = [
        {
            point: {tuning: _rounds(seconds, odd) for tuning, seconds in taken.items()}
            for point, taken in timed.items()
        }
        for odd in (0, 1)
    ]
    told: list[float] = []
    for choose, tell in (halves, halves[::-1]):
        fastest = min(choose, key=lambda point: middle(choose[point]))
        told.append(_compared(tell[fastest], tell[default]))
    return fmean(told)


def _compared(one: Timed, other: Timed) -> float:
    """How many times as long one point takes as another, by rounds that timed both."""
    rounds = [
        first / second
        for tuning in one
        # Versions that give a kernel no point of its own time its default once more.
        for first, second in zip(one[tuning], other.get(tuning, ()), strict=False)
    ]
    return median(rounds) if rounds else middle(one) / middle(other)


def middle(taken: Timed) -> float:
    """The median of all."""
    return median(chain.from_iterable(taken.values()))


def _rounds(seconds: Sequence[float], odd: int) -> list[float]:
    """Medians of every other round; of a single one, where there is no other."""
    every = [median(seconds[i : i + CALLS]) for i in range(0, len(seconds), CALLS)]
    return every[odd::2] or every
