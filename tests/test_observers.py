"""Ranges from histograms, against the same searched for on the samples themselves."""

import numpy as np
import pytest

from hybridc.compiler.model import Array
from hybridc.compiler.quantization import observers

DRAW = np.random.default_rng(5)
SAMPLES = {
    "normal": DRAW.standard_normal(20_000),
    "rectified": np.maximum(DRAW.standard_normal(20_000), 0),
    "outliers": np.concatenate([DRAW.standard_normal(20_000), [60.0, -35.0]]),
    "positive": DRAW.uniform(3, 5, 5_000),
    "negative": -DRAW.uniform(3, 5, 5_000),
    "heavy": DRAW.standard_t(2, 20_000),
}


def histogram(values: Array) -> observers.Histogram:
    return observers.empty(float(values.min()), float(values.max())).add(values)


def squared_error(values: Array, low: float, high: float) -> float:
    return float(np.mean((observers.rounded(values, *observers.affine(low, high)) - values) ** 2))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_range_of_least_squares_is_that_of_the_samples(name: str) -> None:
    values = SAMPLES[name]
    shares = np.linspace(0.1, 1, 400)
    least = min(squared_error(values, values.min() * s, values.max() * s) for s in shares)
    found = squared_error(values, *observers.mse(histogram(values)))
    assert found <= 1.1 * least


def test_a_few_outliers_saturate_where_that_costs_less() -> None:
    values = np.append(np.tile(SAMPLES["normal"], 20), 9.0)
    low, high = observers.mse(histogram(values))
    assert high < 7
    assert squared_error(values, low, high) < 0.9 * squared_error(values, values.min(), 9.0)


@pytest.mark.parametrize("name", SAMPLES)
def test_percentiles_are_those_of_the_samples(name: str) -> None:
    values = SAMPLES[name]
    low, high = observers.percentile(histogram(values))
    width = (values.max() - values.min()) / observers.BINS
    assert low <= np.quantile(values, 2e-4) + width
    assert high >= np.quantile(values, 1 - 2e-4) - width
    assert np.mean((values < low) | (values > high)) <= 2.5e-4


def test_minmax_is_all_that_was_seen() -> None:
    found = histogram(SAMPLES["outliers"])
    assert observers.minmax(found) == (-35.0, 60.0)


def divergence(values: Array, low: float, high: float, edges: Array) -> float:
    """The divergence as Migacz tells it, element by element."""
    scale, zero = observers.affine(low, high)
    centres = (edges[1:] + edges[:-1]) / 2
    counts = np.histogram(values, edges)[0].astype(float)
    inside = [i for i, c in enumerate(centres) if min(low, 0) <= c <= max(high, 0)]
    p, q = np.zeros(len(centres)), np.zeros(len(centres))
    levels: dict[int, list[int]] = {}
    for i in inside:
        p[i] = counts[i]
        if counts[i]:
            levels.setdefault(int(np.clip(np.round(centres[i] / scale) + zero, 0, 255)), []).append(
                i
            )
    for members in levels.values():
        for i in members:
            q[i] = counts[members].sum() / len(members)
    p[inside[0]] += counts[: inside[0]].sum()
    p[inside[-1]] += counts[inside[-1] + 1 :].sum()
    p, q = p / p.sum(), q / q.sum()
    return float(sum(a * np.log(a / max(b, 1e-12)) for a, b in zip(p, q, strict=True) if a > 0))


@pytest.mark.parametrize("name", ["normal", "rectified", "outliers"])
def test_the_range_of_least_divergence_is_found(name: str) -> None:
    values = SAMPLES[name]
    found = histogram(values)
    low, high = observers.entropy(found)
    best = divergence(values, low, high, found.edges)
    for share in (0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0):
        tried = divergence(values, values.min() * share, values.max() * share, found.edges)
        assert best <= tried + 1e-9


@pytest.mark.parametrize("method", observers.OBSERVERS)
@pytest.mark.parametrize("values", [np.zeros(9), np.full(7, 3.0), np.full(4, -2.5), np.ones(1)])
def test_constant_tensors_have_a_range(method: str, values: Array) -> None:
    low, high = observers.OBSERVERS[method](histogram(values))
    scale, zero = observers.affine(low, high)
    assert 0 <= zero <= 255
    np.testing.assert_allclose(observers.rounded(values, scale, zero), values, atol=scale / 2)


@pytest.mark.parametrize("bounds", [(-1.0, 3.0), (0.0, 6.0), (2.0, 5.0), (-4.0, -1.0), (-1e-40, 0)])
def test_zero_is_stored_exactly(bounds: tuple[float, float]) -> None:
    scale, zero = observers.affine(*bounds)
    assert observers.rounded(np.zeros(1), scale, zero)[0] == 0
    ends = observers.rounded(np.asarray(bounds), scale, zero)
    np.testing.assert_allclose(ends, bounds, atol=scale * 0.51)


def test_histograms_add_up_and_leave_out_what_is_not_finite() -> None:
    values = SAMPLES["normal"]
    parts = observers.empty(float(values.min()), float(values.max()))
    for part in np.array_split(values, 7):
        parts = parts.add(np.append(part, [np.nan, np.inf]))
    np.testing.assert_array_equal(parts.counts, histogram(values).counts)


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 1.0001), (1e6, 1e6 + 1), (0.0, 1e-44), (-3e38, 3e38), (-1e-6, 1e6)]
)
def test_ranges_may_be_of_any_width(low: float, high: float) -> None:
    values = np.array([low, high, low], np.float32)
    found = histogram(values)
    assert found.counts.sum() == 3
    assert found.counts[[0, -1]].tolist() == [2, 1]
    for observer in observers.OBSERVERS.values():
        scale, zero = observers.affine(*observer(found))
        assert np.isfinite(scale)
        assert scale > 0
        assert 0 <= zero <= 255
