"""Which of several measured choices wins, when measurements are noisy."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import TypeVar

from hybridc.compiler.interfaces import Point
from hybridc.compiler.log.record import Verdict

# Choices that are apart by less than this never count as different, however quiet the samples.
_LEAST = 0.01
# And those that are apart by more always do.
WIDEST = 0.05
# Two visits to a point that are further apart do not tell of the same: one was disturbed, or lucky.
# Below lie what another pace of the machine, corrected for, may leave (10 %), and noise.
_APART = 1.12
# Half the 95 % interval of a median, in interquartile ranges over the root of the count
# (McGill, Tukey and Larsen, Variations of Box Plots, The American Statistician 32, 1978).
_NOTCH = 1.57
_PAIR = 2

_Visit = TypeVar("_Visit")
Order = tuple[str, tuple[tuple[str, int], ...], str]


class DamagedError(Exception):
    """A row of the log holds no samples; `row` is its number."""

    def __init__(self, row: int, reason: object) -> None:
        self.row = row
        super().__init__(f"row {row} of the log is not a record: {reason}")


@dataclass(eq=False)
class Measured:
    """What of a row of the log decides who wins.

    `choice` is the number of its rule and point, `median` that of its samples.  The samples are
    JSON, and are read when somebody asks for them: of most rows nobody does.
    """

    id: int
    choice: int
    rule: str
    point: Point
    trace: str
    verdict: str
    median: float
    text: str

    @cached_property
    def seconds(self) -> tuple[float, ...]:
        """The samples.  Raises DamagedError if there are none."""
        try:
            return tuple(map(float, json.loads(self.text)))
        except (TypeError, ValueError, RecursionError) as error:
            raise DamagedError(self.id, error) from None

    @property
    def order(self) -> Order:
        """Of rule and point among all: by rule, then by knobs, smallest values first."""
        return self.rule, tuple(sorted(self.point.items())), self.trace


@dataclass
class Choice:
    """A rule's point, and `seconds`, the median of the samples of `group`.

    `group` are the measurements that ended well and were not disturbed, the lowest median first.
    """

    seconds: float
    group: Sequence[Measured]

    @cached_property
    def noise(self) -> float:
        """Half the interval of the median, as a share of it."""
        samples = _samples(self.group)
        if len(samples) < 2:
            return WIDEST / 2  # one sample says nothing of its noise
        low, middle, high = (_quantile(samples, share) for share in (0.25, 0.5, 0.75))
        return _NOTCH * (high - low) / sqrt(len(samples)) / middle

    def tied(self, best: "Choice") -> bool:
        """Whether the noise hides that this one is slower than the fastest."""
        apart = self.seconds - best.seconds
        if apart <= _LEAST * best.seconds:
            return True
        return apart <= min(WIDEST, best.noise + self.noise) * best.seconds


def believed(visits: Iterable[_Visit], seconds: Callable[[_Visit], float]) -> list[_Visit]:
    """The visits to one point that agree with the middle one, the fastest first.

    Whatever disturbs adds time, and a visit that was disturbed has the more samples, as they
    scatter: in the median of all it would outvote the others.  The fastest visit, though, may be
    luck, and would have every other one count as disturbed.  So each visit has one vote.  Of an
    even number the faster of the two in the middle is taken: of two that are `contested` the faster
    counts until a third one tells.
    """
    ordered = sorted(visits, key=seconds)
    if not ordered:
        return []
    middle = seconds(ordered[(len(ordered) - 1) // 2])
    return [each for each in ordered if middle / _APART <= seconds(each) <= middle * _APART]


def contested(visits: Sequence[float]) -> bool:
    """Whether two visits, of which these are the times, disagree, and no third one tells."""
    return len(visits) == _PAIR and max(visits) > _APART * min(visits)


def choices(measured: Iterable[Measured]) -> list[Choice]:
    """Pool what was measured of each choice, fastest first; one that was ever wrong is none.

    Raises DamagedError if samples that are needed cannot be read.
    """
    groups: dict[int, list[Measured]] = {}
    for each in measured:
        groups.setdefault(each.choice, []).append(each)
    fit = [choice for group in groups.values() if (choice := _pooled(group))]
    return sorted(fit, key=lambda choice: choice.seconds)


def winner(ranked: Sequence[Choice]) -> Choice:
    """The canonical one of those that cannot be told from the fastest; `ranked` is not empty."""
    best = ranked[0]
    near = [each for each in ranked if each.seconds <= (1 + WIDEST) * best.seconds]
    near.sort(key=lambda choice: choice.group[0].order)
    return next((each for each in near if each.tied(best)), best)


def _pooled(group: Sequence[Measured]) -> Choice | None:
    if len(group) == 1:
        (one,) = group
        return Choice(one.median, group) if one.verdict == Verdict.OK else None
    good = [each for each in group if each.verdict == Verdict.OK]
    if not good or any(each.verdict == Verdict.WRONG for each in group):
        return None
    good = believed(good, lambda each: each.median)
    return Choice(_quantile(_samples(good), 0.5), good)


def _samples(group: Sequence[Measured]) -> list[float]:
    """All samples, in order."""
    return sorted(sample for each in group for sample in each.seconds)


def _quantile(samples: Sequence[float], share: float) -> float:
    """Of samples in order; what `statistics` has takes most of a look-up's time."""
    place = share * (len(samples) - 1)
    low = int(place)
    high = min(low + 1, len(samples) - 1)
    return samples[low] + (samples[high] - samples[low]) * (place - low)
