"""How well outputs agree with a reference's, over many samples: metrics with their bounds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hybridc.compiler.assurance import confidence
from hybridc.compiler.assurance.confidence import Estimate, Floats
from hybridc.compiler.assurance.difference import Difference
from hybridc.compiler.errors import InputError, WrongAnswerError, hint
from hybridc.compiler.model import Array

# Elements smaller than this share of the output's largest have no relative error of interest.
_SMALL = 1e-3
# Decibels of twice the squared error, which a few samples may hide: where its logarithm deviates by
# 0.4 from sample to sample (a factor of 1.5), one in 20 has less than half of the mean.
_TWICE = 10 * math.log10(2)


@dataclass(frozen=True)
class Metric:
    """A measure of accuracy between `low` and `high`; `higher` tells whether more is better.

    `of` estimates it from the difference of one output, whose first axis are the samples.
    """

    higher: bool
    low: float
    high: float
    of: Callable[[Difference], Estimate]


def estimate(
    metric: str, wanted: Sequence[Sequence[Array]], got: Sequence[Sequence[Array]]
) -> Estimate:
    """The metric of the worst output, over all samples; both sides are lists of lists of outputs.

    Raises InputError where no metric has the name, WrongAnswerError where shapes or counts differ.
    """
    if metric not in METRICS:
        raise InputError(f"no accuracy metric is named {metric!r}; {hint(metric, METRICS)}")
    if [_shapes(sample) for sample in wanted] != [_shapes(sample) for sample in got]:
        raise WrongAnswerError("the outputs differ in number or shape from the reference's")
    if len({tuple(_shapes(sample)) for sample in wanted}) > 1:
        raise InputError(
            f"accuracy {metric!r} needs samples of one shape; these differ in their open sizes"
        )
    kind = METRICS[metric]
    found = [
        kind.of(Difference(np.stack(want), np.stack(have)))
        for want, have in zip(zip(*wanted, strict=True), zip(*got, strict=True), strict=True)
    ]
    perfect = Estimate.exactly(1.0 if kind.higher else 0.0)
    if kind.higher:
        worst = min(found, key=lambda each: each.low, default=perfect)
    else:
        worst = max(found, key=lambda each: each.high, default=perfect)
    # Of skewed errors in few samples the bootstrap reaches beyond what the metric can be.
    return Estimate(worst.value, max(kind.low, worst.low), min(kind.high, worst.high))


def _shapes(sample: Sequence[Array]) -> list[tuple[int, ...]]:
    return [array.shape for array in sample]


def _cosine(difference: Difference) -> Estimate:
    """Cosine of the angle between all outputs as one vector; two zero vectors agree."""
    wanted, got = difference.scaled
    products = (wanted * got, wanted**2, got**2, difference.broken)
    return confidence.resampled(_by_sample(products), _cosine_of, lambda found: 2 * found - 1)


def _cosine_of(sums: Floats) -> Floats:
    product, wanted, got, broken = np.moveaxis(sums, -1, 0)
    sizes = np.sqrt(wanted) * np.sqrt(got)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.clip(product / sizes, -1.0, 1.0)
    zero = np.where((wanted <= 0) & (got <= 0), 1.0, 0.0)
    return np.where(broken > 0, -1.0, np.where(sizes > 0, cosine, zero))


def _snr(difference: Difference) -> Estimate:
    """Signal-to-noise ratio in decibels, 10 log10 (Σ wanted² / Σ (got - wanted)²)."""
    wanted, got = difference.scaled
    squares = (wanted**2, (got - wanted) ** 2, difference.broken)
    return confidence.resampled(_by_sample(squares), _snr_of, lambda found: found - _TWICE)


def _snr_of(sums: Floats) -> Floats:
    signal, noise, broken = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 10 * np.log10(signal / noise)
    return np.where(broken > 0, -math.inf, np.where(noise > 0, found, math.inf))


def _top1(difference: Difference) -> Estimate:
    """The share of rows (last axis) with the largest element in the same place.

    Of integers that name a class each, the share of equal ones.  A single float has no place.
    """
    wanted, got = difference.wanted, difference.got
    if wanted.size == 0 or not (difference.classes or has_rows(wanted.shape[1:])):
        return Estimate.exactly(1.0)
    if difference.classes:
        same = difference.same
    else:
        same = (wanted.argmax(-1) == got.argmax(-1)) & ~difference.broken.any(-1)
    return confidence.share_of(float(same.sum()), float(same.size), len(wanted))


def has_rows(shape: tuple[int, ...]) -> bool:
    """Whether an output has rows of several elements, of which one may be the largest."""
    return bool(shape) and shape[-1] > 1


def _max_abs(difference: Difference) -> Estimate:
    return Estimate.exactly(difference.max_abs)


def _max_rel(difference: Difference) -> Estimate:
    if not difference.largest and difference.max_abs:
        return Estimate.exactly(math.inf)  # of nothing that was wanted
    return Estimate.exactly(difference.max_rel(_SMALL * difference.largest))


def _by_sample(terms: Sequence[Array]) -> Floats:
    """Sums over all axes but the first, `[samples, terms]`."""
    return np.stack([term.reshape(len(term), -1).sum(axis=1) for term in terms], axis=1)


METRICS: Mapping[str, Metric] = {
    "cosine": Metric(True, -1.0, 1.0, _cosine),
    "max-abs": Metric(False, 0.0, math.inf, _max_abs),
    "max-rel": Metric(False, 0.0, math.inf, _max_rel),
    "snr": Metric(True, -math.inf, math.inf, _snr),
    "top1": Metric(True, 0.0, 1.0, _top1),
}
