"""A kernel's own trials correct what a model expects, and say where to look next."""

import itertools

import numpy as np
import pytest

from hybridc.compiler.interfaces import Point
from hybridc.compiler.tuning.prediction import posterior

SPACE = {"rows": (1, 2, 4, 8, 16), "chunk": (1, 3, 9, 27), "staged": (0, 1)}
POINTS: list[Point] = [
    dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())
]


def seconds(points: list[Point]) -> np.ndarray:
    return np.asarray([
        1e-3 * (1 + abs(np.log2(p["rows"] / 8)) + 0.2 * np.log2(p["chunk"]) + 0.3 * p["staged"])
        for p in points
    ])  # fmt: skip


def search(expected: np.ndarray, rounds: int, at_once: int = 4) -> list[int]:
    """Numbers of the points in the order of their trials, the first point first."""
    tried = [0]
    for _ in range(rounds):
        known = [POINTS[i] for i in tried]
        found = posterior.fitted(known, expected[tried], seconds(known))
        order = found.order(POINTS, expected)
        tried += [int(i) for i in np.argsort(order) if i not in tried][:at_once]
    return tried


def test_the_best_is_found_by_trials_alone() -> None:
    tried = search(np.zeros(len(POINTS)), rounds=4)
    assert int(seconds(POINTS).argmin()) in tried


def test_a_good_model_is_followed_and_a_wrong_one_is_corrected() -> None:
    truth = np.log(seconds(POINTS))
    assert int(truth.argmin()) in search(truth + 5.0, rounds=1)
    assert int(truth.argmin()) in search(-truth, rounds=5)


def test_the_posterior_is_that_of_gaussian_regression() -> None:
    known, times = POINTS[::7], seconds(POINTS[::7])
    expected = np.linspace(-1, 1, len(POINTS))
    found = posterior.fitted(known, expected[::7], times)
    here, everywhere = posterior.coordinates(known), posterior.coordinates(POINTS)

    def kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        apart = np.linalg.norm(one[:, None] - other[None], axis=2) * 5**0.5 / found.length
        return found.error**2 * (1 + apart + apart**2 / 3) * np.exp(-apart)

    inverse = np.linalg.inv(kernel(here, here) + 0.02**2 * np.eye(len(here)))
    residual = np.log(times) - found.trust * expected[::7] - found.offset
    mean = found.offset + found.trust * expected + kernel(everywhere, here) @ inverse @ residual
    reduced = np.einsum("ij,jk,ik->i", kernel(everywhere, here), inverse, kernel(everywhere, here))
    bound = mean - np.sqrt(np.maximum(found.error**2 - reduced, 1e-12))
    order = found.order(POINTS, expected)
    assert int(order.argmin()) == int(bound.argmin())
    assert sorted(order) == list(range(len(POINTS)))


def test_points_side_by_side_are_not_all_tried_at_once() -> None:
    flat = np.zeros(len(POINTS))
    found = posterior.fitted([POINTS[0]], flat[:1], np.asarray([1e-3]))
    first = np.argsort(found.order(POINTS, flat))[:6]
    places = posterior.coordinates([POINTS[i] for i in first])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)[np.triu_indices(6, 1)]
    assert apart.min() > 0.9


def test_failures_are_kept_away_from() -> None:
    known = [p for p in POINTS if p["chunk"] in (1, 27)]
    times = np.asarray([np.nan if p["chunk"] == 27 else 1e-3 for p in known])
    found = posterior.fitted(known, np.zeros(len(known)), times)
    rest = [p for p in POINTS if p["chunk"] in (3, 9)]
    first = np.argsort(found.order(rest, np.zeros(len(rest))))[:5]
    assert {rest[i]["chunk"] for i in first} == {3}
    with pytest.raises(ValueError, match="no trial ended well"):
        posterior.fitted(known, np.zeros(len(known)), np.full(len(known), np.nan))
