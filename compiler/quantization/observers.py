"""From what a tensor held during calibration to the range that its 8 bits shall cover.

An observer takes a histogram and gives the lowest and the highest number that are represented;
what lies beyond saturates.  All are pure functions on numpy arrays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hybridc.compiler.model import Array

BINS = 2048
# Steps between the 256 numbers that 8 bits can tell apart.
_STEPS = 255
# Share of the elements that `percentile` cuts off at each end.
_TAIL = 1e-4
# Ranges that are tried, as shares of the widest; narrower ones would cut off most elements.
_SHARES = np.linspace(0.1, 1.0, 91)

Range = tuple[float, float]


@dataclass(frozen=True)
class Histogram:
    """How many elements lie in each of the bins of equal width between `low` and `high`."""

    low: float
    high: float
    counts: Array

    @property
    def edges(self) -> Array:
        """The bounds of the bins, one more than there are bins."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)

    @property
    def centres(self) -> Array:
        """The middle of each bin."""
        edges = self.edges
        return (edges[1:] + edges[:-1]) / 2

    def add(self, values: Array) -> "Histogram":
        """The histogram with the finite ones of more values, which lie between its bounds."""
        found = values[np.isfinite(values)].astype(np.float64)
        found = found[(found >= self.low) & (found <= self.high)]
        # Not numpy's histogram, which has no bins between neighbours of float32.
        width, last = self.high - self.low or 1.0, len(self.counts) - 1
        bins = np.minimum((found - self.low) / width * len(self.counts), last).astype(np.int64)
        return Histogram(self.low, self.high, self.counts + np.bincount(bins, minlength=last + 1))


def empty(low: float, high: float, bins: int = BINS) -> Histogram:
    """A histogram of nothing."""
    return Histogram(low, high, np.zeros(bins, np.int64))


def minmax(histogram: Histogram) -> Range:
    """All that was seen."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram) -> Range:
    """All but one element in ten thousand at each end."""
    total = histogram.counts.sum()
    if not total or histogram.high <= histogram.low:
        return minmax(histogram)
    share = np.cumsum(histogram.counts) / total
    edges = histogram.edges
    first = int(np.searchsorted(share, _TAIL, side="right"))
    last = int(np.searchsorted(share, 1 - _TAIL, side="left"))
    return float(edges[first]), float(edges[last + 1])


def mse(histogram: Histogram) -> Range:
    """The range with the least mean squared error of rounding and saturation together.

    R. Banner, Y. Nahshan, D. Soudry: Post training 4-bit quantization of convolutional networks
    for rapid-deployment (2019), section 3, weigh the same two errors; here by trying ranges.
    """
    counts, centres = histogram.counts, histogram.centres
    return _least(histogram, lambda low, high: _squared_error(counts, centres, low, high))


def entropy(histogram: Histogram) -> Range:
    """The range whose 256 levels keep most of the distribution: least Kullback-Leibler divergence.

    S. Migacz: 8-bit inference with TensorRT (2017).  What saturates counts at the ends of the
    reference distribution; a level's share is spread evenly over its bins that are not empty.
    """
    counts, centres = histogram.counts.astype(np.float64), histogram.centres
    return _least(histogram, lambda low, high: _divergence(counts, centres, low, high))


OBSERVERS: Mapping[str, Callable[[Histogram], Range]] = MappingProxyType(
    {"minmax": minmax, "percentile": percentile, "entropy": entropy, "mse": mse}
)


def affine(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of uint8 for a range, which is widened to hold 0 exactly.

    `x` is stored as `round(x / scale) + zero`, within 0 and 255.  A range of nothing but 0, which
    any scale does for, has scale 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / _STEPS))
    if not np.isfinite(scale) or scale < np.finfo(np.float32).tiny:
        return 1.0, 0
    return scale, int(np.clip(np.round(-low / scale), 0, _STEPS))


def rounded(values: Array, scale: float, zero: int) -> Array:
    """What is left of numbers when they are stored by this scale and zero point."""
    stored = np.clip(np.round(values / scale) + zero, 0, _STEPS)
    return ((stored - zero) * scale).astype(values.dtype)


def _least(histogram: Histogram, cost: Callable[[float, float], float]) -> Range:
    """The range that costs least among shares of the widest; the widest one of equals.

    Both ends are drawn in together, and then each of them alone.
    """
    if not histogram.counts.any() or histogram.high <= histogram.low:
        return minmax(histogram)
    lows, highs = (end * _SHARES[::-1] for end in minmax(histogram))
    low, high = _cheapest(list(zip(lows, highs, strict=True)), cost)
    low, high = _cheapest([(low, high), *((low, each) for each in highs)], cost)
    return _cheapest([(low, high), *((each, high) for each in lows)], cost)


def _cheapest(tried: list[Range], cost: Callable[[float, float], float]) -> Range:
    low, high = min(tried, key=lambda each: cost(*each))
    return float(low), float(high)


def _squared_error(counts: Array, centres: Array, low: float, high: float) -> float:
    scale, zero = affine(low, high)
    return float(counts @ (rounded(centres, scale, zero) - centres) ** 2)


def _divergence(counts: Array, centres: Array, low: float, high: float) -> float:
    scale, zero = affine(low, high)
    levels = np.clip(np.round(centres / scale) + zero, 0, _STEPS).astype(np.int64)
    inside = (centres >= min(low, 0.0)) & (centres <= max(high, 0.0))
    wanted = np.where(inside, counts, 0)
    kept = np.flatnonzero(inside)
    if not kept.size:
        return np.inf
    level = np.bincount(levels[kept], counts[kept], _STEPS + 1)
    wanted[kept[0]] += counts[: kept[0]].sum()
    wanted[kept[-1]] += counts[kept[-1] + 1 :].sum()
    filled = inside & (counts > 0)
    bins = np.bincount(levels[filled], minlength=_STEPS + 1)
    got = np.where(filled, level[levels] / np.maximum(bins[levels], 1), 0)
    return _kullback_leibler(wanted, got)


def _kullback_leibler(wanted: Array, got: Array) -> float:
    """Divergence of two distributions that need not add up to 1; where none is got, it is tiny."""
    if not got.any():
        return np.inf
    p, q = wanted / wanted.sum(), got / got.sum()
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-12))).sum())
