"""Bounds of estimates: how often they hold on values whose distribution is known."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridc.compiler.assurance import confidence
from hybridc.compiler.assurance.accuracy import METRICS
from hybridc.compiler.assurance.confidence import Estimate, quantile, resampled, share_of
from hybridc.compiler.assurance.difference import Difference


@settings(deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=60), share=st.floats(0.01, 0.99))
def test_bounds_of_a_quantile_enclose_it(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(("count", "share"), [(31, 0.5), (400, 0.99), (1000, 0.9)])
def test_bounds_of_a_quantile_hold_as_often_as_they_say(count: int, share: float) -> None:
    rng = np.random.default_rng(0)
    true = -math.log(1 - share)
    found = [quantile(list(rng.exponential(size=count)), share) for _ in range(400)]
    for missed in (
        sum(each.low > true for each in found),
        sum(each.high < true for each in found),
    ):
        assert missed <= 0.05 * 400 + 3 * math.sqrt(400 * 0.05 * 0.95)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999])
def test_so_many_values_bound_a_quantile(share: float) -> None:
    fewest = confidence.values_for_quantile(share)
    assert math.isfinite(quantile([1.0] * fewest, share).high)
    assert quantile([1.0] * (fewest - 1), share).high == math.inf


def test_a_share_is_bounded_even_where_all_succeed() -> None:
    found = share_of(360, 360, 360)
    assert found.value == found.high == 1.0
    assert 0.99 < found.low < 0.995
    assert share_of(0, 0, 0).value == 1.0
    # Rows of one sample may fail together.
    assert share_of(900, 1000, 10).low < share_of(900, 1000, 1000).low


def test_few_samples_bound_by_the_worst_and_the_best() -> None:
    sums = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 4.0]])
    found = resampled(sums, lambda total: total[..., 0] / total[..., 1])
    assert found == Estimate(3 / 7, 1 / 4, 1.0)
    assert resampled(sums[:1], lambda total: total[..., 0]) == Estimate.exactly(1.0)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 19, 20, 40])
@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_bounds_of_accuracy_hold_however_few_samples_there_are(count: int, spread: float) -> None:
    """Where the error's share varies from sample to sample, by its logarithm's deviation."""
    rng, runs = np.random.default_rng(0), 200
    size = 1000
    true = 1 - 1e-4 * math.exp(spread**2 / 2) / 2
    missed = 0
    for _ in range(runs):
        wanted = rng.standard_normal((count, size))
        noise = rng.standard_normal((count, size)) * 1e-2
        noise *= np.exp(spread * rng.standard_normal((count, 1)) / 2)
        missed += METRICS["cosine"].of(Difference(wanted, wanted + noise)).low > true
    assert missed <= 0.05 * runs + 3 * math.sqrt(runs * 0.05 * 0.95)


def test_what_is_not_finite_is_text_in_json_and_is_read_again() -> None:
    given = Estimate(math.nan, -math.inf, math.inf)
    told = json.loads(json.dumps(given.to_json(), allow_nan=False))
    assert told == {"value": "nan", "low": "-inf", "high": "inf"}
    assert repr(Estimate.of_json(told)) == repr(given)
