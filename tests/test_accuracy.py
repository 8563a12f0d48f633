"""Metrics over samples: their values, what one-sided NaN does, and their bounds."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridc.compiler.assurance.accuracy import METRICS, estimate
from hybridc.compiler.errors import InputError, WrongAnswerError
from hybridc.compiler.model import Array

INF, NAN = math.inf, math.nan


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


def value(metric: str, wanted: list[Array], got: list[Array]) -> float:
    return estimate(metric, [wanted], [got]).value


def test_it_is_that_of_the_worst_output() -> None:
    wanted = [f32(1, 0), f32(1, 1)]
    got = [f32(1, 0), f32(1, 0)]
    assert value("cosine", wanted, got) == pytest.approx(math.sqrt(0.5))
    assert value("max-abs", wanted, got) == 1
    assert value("max-rel", wanted, got) == 1
    assert value("snr", wanted, got) == pytest.approx(10 * math.log10(2))
    assert value("top1", wanted, got) == 1
    assert value("top1", [f32(0, 1)], [f32(1, 0)]) == 0


@pytest.mark.parametrize(
    ("wanted", "got", "cosine"), [(0, 0, 1), (1, 0, 0), (0, 1, 0), (1, -1, -1), (2, 5, 1)]
)
def test_cosine_of_vectors_that_may_vanish(wanted: float, got: float, cosine: float) -> None:
    assert value("cosine", [f32(wanted)], [f32(got)]) == cosine


@pytest.mark.parametrize("odd", [NAN, INF, -INF])
def test_what_is_no_number_on_one_side_only_is_worthless(odd: float) -> None:
    assert value("cosine", [f32(1, 2)], [f32(1, odd)]) == -1
    assert value("snr", [f32(1, 2)], [f32(1, odd)]) == -INF
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert estimate("snr", [[f32(1, 2)]] * 30, [[f32(1, 2)]] * 30).low == INF
    assert value("max-abs", [f32(1, 2)], [f32(1, odd)]) == INF
    assert value("max-rel", [f32(1, 2)], [f32(1, odd)]) == INF
    assert value("max-rel", [f32(1, 1e-9)], [f32(1, odd)]) == INF  # however small what was wanted
    assert value("max-rel", [f32(1, odd)], [f32(1, 2)]) == INF
    assert value("top1", [f32(1, 2)], [f32(1, odd)]) == 0
    assert value("cosine", [f32(1, odd)], [f32(1, odd)]) == 1


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3), ()])
def test_empty_outputs_and_scalars_agree(shape: tuple[int, ...]) -> None:
    array: Array = np.zeros(shape, np.float32)
    for name, metric in METRICS.items():
        best = metric.high if metric.higher else metric.low
        assert value(name, [array], [array]) == best


def test_nothing_is_relatively_near_to_zeros() -> None:
    assert value("max-rel", [f32(0, 0)], [f32(0, 1e-30)]) == INF
    assert value("max-rel", [f32(0, 0)], [f32(0, 0)]) == 0


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, np.bool_])
def test_top1_of_classes_is_the_share_of_equal_ones(kind: type) -> None:
    wanted = [np.array([label], kind) for label in (0, 1, 1, 0)]
    got = [np.array([label], kind) for label in (0, 1, 1, 1)]
    assert estimate("top1", [[x] for x in wanted], [[x] for x in got]).value == 0.75
    assert estimate("top1", [[x[0]] for x in wanted], [[x[0]] for x in got]).value == 0.75


def test_top1_of_a_map_of_classes_and_of_quantised_scores() -> None:
    """ArgMax over channels leaves a label for each pixel; 8 bits in rows are scores."""
    wanted, got = np.array([[0, 3, 1, 1]]), np.array([[1, 3, 1, 0]])
    assert value("top1", [wanted], [got]) == 0.5
    assert value("top1", [wanted.astype(np.uint8)], [got.astype(np.uint8)]) == 1


def test_large_integers_that_are_one_number_in_double_precision_differ() -> None:
    wanted, got = np.array([2**60, 1]), np.array([2**60 + 1, 1])
    assert value("max-abs", [wanted], [got]) == 1


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        estimate("cosin", [], [])
    with pytest.raises(WrongAnswerError, match="number or shape"):
        estimate("cosine", [[f32(1)]], [[]])


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 50))
def test_bounds_enclose_the_value_and_samples_make_one_vector(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.standard_normal((count, 3, 4))
    got = wanted + 0.1 * rng.standard_normal(wanted.shape)
    for name in METRICS:
        found = estimate(name, [[x] for x in wanted], [[x] for x in got])
        assert found.low <= found.value <= found.high
    cosine = estimate("cosine", [[x] for x in wanted], [[x] for x in got]).value
    flat = wanted.ravel() @ got.ravel() / np.linalg.norm(wanted) / np.linalg.norm(got)
    assert cosine == pytest.approx(flat)


def test_bounds_hold_for_other_samples_of_the_kind() -> None:
    """Of 100 measurements on 40 samples, few promise more than many samples show."""
    rng = np.random.default_rng(0)

    def measured(count: int) -> dict[str, tuple[float, float]]:
        wanted = rng.standard_normal((count, 10))
        got = wanted + rng.gamma(2, 0.1, (count, 1)) * rng.standard_normal(wanted.shape)
        pairs = [[x] for x in wanted], [[x] for x in got]
        found = {name: estimate(name, *pairs) for name in ("cosine", "snr", "top1")}
        return {name: (each.low, each.value) for name, each in found.items()}

    truth = {name: value for name, (_, value) in measured(20_000).items()}
    drawn = [measured(40) for _ in range(100)]
    for name, true in truth.items():
        assert sum(each[name][0] > true for each in drawn) <= 12, name


def test_bounds_lie_where_the_metric_can() -> None:
    """Errors in a few of the samples, of which these are the largest by far."""
    draw = np.random.default_rng(0)
    wanted = [[draw.standard_normal((1, 8)) * 10.0**power] for power in np.linspace(-6, 6, 24)]
    got = [[each * (1 + 0.5 * draw.standard_normal(each.shape))] for (each,) in wanted]
    found = estimate("cosine", wanted, got)
    assert -1 <= found.low <= found.value <= found.high <= 1
