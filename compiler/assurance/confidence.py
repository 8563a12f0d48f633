"""What a measurement says of measurements to come: an estimate, and how low and high it may lie.

Bounds are one-sided at `LEVEL`: of many such measurements, 95 % have the truth above `low`, and
95 % below `high`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
# Of a resampled estimate, so that it holds at LEVEL for skewed errors of 40 samples.
_STRICT = 0.98
_RESAMPLES = 1000
# More samples than this are taken together in so many groups.
_GROUPS = 400
# The bootstrap promises too much on fewer samples than this.
_ENOUGH = 20
# Of so many the worst lies below the median with LEVEL: 1 - 2^-5.
FEW = 5
_NEAR = 1e-6  # a share is known


@dataclass(frozen=True)
class Estimate:
    """A value with its bounds; the three are equal where nothing varies or nothing is known."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Estimate":
        """A value that was counted, not sampled."""
        return cls(value, value, value)

    def at(self, level: float) -> "Estimate":
        """The same with bounds at another level, where errors are normally distributed."""
        ratio = NormalDist().inv_cdf(level) / NormalDist().inv_cdf(LEVEL)
        below, above = ratio * (self.value - self.low), ratio * (self.high - self.value)
        return Estimate(self.value, self.value - below, self.value + above)

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> "Estimate":
        """What `to_json` told.  Raises KeyError, TypeError or ValueError for anything else."""
        return cls(*(float(told[each.name]) for each in fields(cls)))

    def to_json(self) -> dict[str, float | str]:
        """The three numbers; what JSON lacks as the texts `inf`, `-inf` and `nan`."""
        return {k: v if math.isfinite(v) else str(v) for k, v in vars(self).items()}


def quantile(values: Sequence[float], share: float, level: float = LEVEL) -> Estimate:
    """The value that `share` of all values stay below, by order statistics.

    The bounds hold for any distribution of independent values: the k-th smallest of n lies below
    the quantile with the probability that a binomial variable of (n, share) is at least k
    (Hahn and Meeker, Statistical Intervals, 5.2).  `high` is infinite where there are too few
    values to tell.
    """
    ordered = sorted(values)
    count = len(ordered)
    below = np.cumsum(_binomial(count, share))  # below[k]: of n values, at most k lie below
    first = int(np.searchsorted(below, 1 - level, side="right"))
    last = int(np.searchsorted(below, level))
    value = float(np.quantile(ordered, share))
    low = ordered[first - 1] if first else -math.inf
    high = ordered[last] if last < count else math.inf
    # Between two values the quantile is interpolated.
    return Estimate(value, min(low, value), max(high, value))


def values_for_quantile(share: float, level: float = LEVEL) -> int:
    """The fewest values that bound a quantile from above."""
    return math.ceil(math.log(1 - level) / math.log(share))


def share_of(hits: float, total: float, samples: int) -> Estimate:
    """A share of successes among `total`, of which those in one of the `samples` may go together.

    The exact interval of Clopper and Pearson (Brown, Cai, DasGupta: Interval Estimation for a
    Binomial Proportion, 2001), with no more independent trials than there are samples; Wilson's is
    narrower, and near 1 it misses in up to 7 of 100 cases.  Between whole numbers of successes it
    is interpolated.
    """
    value = hits / total if total else 1.0
    count = int(min(total, samples)) or 1
    low = _least_share(value * count, count)
    high = 1 - _least_share(count - value * count, count)
    return Estimate(value, min(value, low), max(value, high))


def _least_share(hits: float, count: int) -> float:
    """The share of which so many successes, or more, are as likely as an error is allowed."""
    whole = math.floor(hits)
    if hits > whole:
        low, high = _least_share(whole, count), _least_share(whole + 1, count)
        return low + (hits - whole) * (high - low)
    low, high = 0.0, 1.0
    while hits and high - low > _NEAR:
        middle = (low + high) / 2
        likely = float(_binomial(count, middle)[whole:].sum()) > 1 - LEVEL
        low, high = (low, middle) if likely else (middle, high)
    return low


def resampled(
    sums: Floats,
    value: Callable[[Floats], Floats],
    doubt: Callable[[float], float] = lambda value: value,
) -> Estimate:
    """A smooth function of sums over samples, by the studentised bootstrap, seeded.

    `sums` is `[samples, k]`, what each sample adds to the `k` sums; `value` takes `[..., k]`.
    Plain percentiles promise too much where a few samples carry most of the error; dividing by
    each draw's own standard error mends most of that (Efron and Tibshirani, An Introduction to
    the Bootstrap, 12.5), a stricter level the rest.  Of few samples the bounds are the worst and
    the best of them, each taken alone; of fewer than `FEW` the worst, too, may be a good one, and
    `doubt` says how much worse it is taken to be.
    """
    found = float(value(sums.sum(axis=0)))
    if len(sums) < _ENOUGH:
        alone = [float(each) for each in value(sums)]
        low = min(found, *alone, found)
        return Estimate(found, low if len(sums) >= FEW else doubt(low), max(found, *alone, found))
    if not math.isfinite(found):
        return Estimate.exactly(found)
    groups = np.array_split(sums, min(len(sums), _GROUPS))
    grouped = np.stack([group.sum(axis=0) for group in groups])
    error = float(_standard_errors(grouped, np.ones((1, len(grouped))), value)[0])
    if not error > 0:
        return Estimate.exactly(found)
    count = len(grouped)
    draws = np.random.default_rng(0).multinomial(count, [1 / count] * count, _RESAMPLES)
    weights = draws.astype(np.float64)
    errors = _standard_errors(grouped, weights, value)
    drawn = value(weights @ grouped) - found
    far = np.quantile(drawn / np.where(errors > 0, errors, error), [1 - _STRICT, _STRICT])
    low, high = (found - float(each) * error for each in far[::-1])
    return Estimate(found, min(found, low), max(found, high))


def _standard_errors(sums: Floats, weights: Floats, value: Callable[[Floats], Floats]) -> Floats:
    """Of `value` at the sums weighted by each row of `weights`, by its linear part there."""
    totals = weights @ sums
    steps = 1e-6 * np.abs(totals)
    slopes = np.zeros_like(totals)
    for column in np.flatnonzero(steps.any(axis=0)):  # a sum that is 0 throughout moves nothing
        step = np.zeros_like(totals)
        step[:, column] = steps[:, column]
        difference = value(totals + step) - value(totals - step)
        slopes[:, column] = difference / np.maximum(2 * steps[:, column], 1e-300)
    reach = slopes @ sums.T - (slopes * totals).sum(axis=1, keepdims=True) / len(sums)
    errors: Floats = np.sqrt((weights * reach**2).sum(axis=1))
    return errors


def _binomial(count: int, share: float) -> Floats:
    """The probability of each number of successes from 0 to `count`."""
    k = np.arange(count + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(k[1:]))])  # their logarithms
    ways = factorials[count] - factorials - factorials[::-1]
    chances: Floats = np.exp(ways + k * math.log(share) + (count - k) * math.log1p(-share))
    return chances
