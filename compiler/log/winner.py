"""Which of several measured choices wins, when measurements are noisy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Generic, Protocol, TypeVar

from hybridc.compiler.interfaces import Point
from hybridc.compiler.log.record import Verdict

# Choices that are apart by less than this never count as different, however quiet the samples.
_LEAST = 0.01
# And those that are apart by more always do.
WIDEST = 0.05
# Half the 95 % interval of a median, in interquartile ranges over the root of the count
# (McGill, Tukey and Larsen, Variations of Box Plots, The American Statistician 32, 1978).
_NOTCH = 1.57


class Measured(Protocol):
    """What of a record decides who wins; a `Record` is one."""

    @property
    def rule(self) -> str:
        """The rule's name."""
        ...

    @property
    def point(self) -> Point:
        """The point of its space."""
        ...

    @property
    def trace(self) -> str:
        """TVM's trace where the rule has no knobs."""
        ...

    @property
    def verdict(self) -> str:
        """How the measurement ended."""
        ...

    @property
    def seconds(self) -> Sequence[float]:
        """The samples."""
        ...


M = TypeVar("M", bound=Measured)
Order = tuple[str, tuple[tuple[str, int], ...], str]


@dataclass(frozen=True)
class Choice(Generic[M]):
    """A rule's point with all that was measured of it.

    `seconds` is the median of all samples, `noise` half the interval of it, as a share of it;
    `group` are the measurements, the lowest median first.
    """

    order: Order
    seconds: float
    noise: float
    group: tuple[M, ...]


def order(measured: Measured) -> Order:
    """The canonical order of choices: by rule, then by knobs, smallest values first."""
    return measured.rule, tuple(sorted(measured.point.items())), measured.trace


def choices(records: Iterable[M]) -> list[Choice[M]]:
    """Pool the samples of each choice, fastest first; one that was ever wrong is none."""
    pooled: dict[Order, list[M]] = {}
    for record in records:
        pooled.setdefault(order(record), []).append(record)
    fit = (_pooled(key, group) for key, group in pooled.items())
    return sorted((choice for choice in fit if choice), key=lambda choice: choice.seconds)


def winner(ranked: Sequence[Choice[M]]) -> Choice[M]:
    """The canonical one of those that cannot be told from the fastest; `ranked` is not empty."""
    best = ranked[0]
    tied = (each for each in ranked if each.seconds <= best.seconds * (1 + _band(best, each)))
    return min(tied, key=lambda choice: choice.order)


def _band(best: Choice[M], other: Choice[M]) -> float:
    return min(WIDEST, max(_LEAST, best.noise + other.noise))


def _pooled(key: Order, group: Sequence[M]) -> Choice[M] | None:
    good = [record for record in group if record.verdict == Verdict.OK and record.seconds]
    if not good or any(record.verdict == Verdict.WRONG for record in group):
        return None
    samples = sorted(sample for record in good for sample in record.seconds)
    ranked = tuple(sorted(good, key=_median)) if len(good) > 1 else tuple(good)
    return Choice(key, _quantile(samples, 0.5), _noise(samples), ranked)


def _median(record: Measured) -> float:
    return _quantile(sorted(record.seconds), 0.5)


def _noise(samples: Sequence[float]) -> float:
    """Of samples in order."""
    if len(samples) < 2:
        return WIDEST / 2  # one sample says nothing of its noise
    low, middle, high = (_quantile(samples, share) for share in (0.25, 0.5, 0.75))
    return _NOTCH * (high - low) / sqrt(len(samples)) / middle


def _quantile(samples: Sequence[float], share: float) -> float:
    """Of samples in order; what `statistics` has takes most of a look-up's time."""
    place = share * (len(samples) - 1)
    low = int(place)
    high = min(low + 1, len(samples) - 1)
    return samples[low] + (samples[high] - samples[low]) * (place - low)
