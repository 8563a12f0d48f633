"""Points of a kernel are ranked by what was learned and by its trials, whoever may look at them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_builders import PACKED, constant, floats, op, operator

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import NotApplicable, Point, Trial
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.prediction import cost_model
from hybridc.compiler.tuning.prediction.features import Features, Matrix
from hybridc.compiler.tuning.prediction.predictor import Predictor


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """A matrix product for a CPU with AVX-512."""
    cpu = target.parse("avx512", threads=2)
    build = operator(lambda x: op.matmul(x, constant(96, 64)), *floats([40, 96]), passes=PACKED)
    for func in build(cpu):
        for rule in pipeline.rules():
            match: Any = rule.match(func, cpu)
            if not isinstance(match, NotApplicable):
                return Kernel("product", func, rule, cpu)
    raise AssertionError("no rule takes the kernel")


def points(kernel: Kernel) -> list[Point]:
    """Points that differ in their schedule."""
    space = kernel.rule.knobs(kernel.match)
    drawn = [
        {knob: values[(i * 7 + place * i) % len(values)] for place, (knob, values) in enumerate(
            space.items())}
        for i in range(40)
    ]  # fmt: skip
    found = [kernel.rule.canonical(kernel.match, point) for point in drawn]
    return list({tuple(point.items()): point for point in found}.values())


def seconds(point: Point) -> float:
    """A time that likes other points than any model does."""
    return 1e-3 * (1 + abs(np.log2(point["rows"] / 2)) + 0.2 * point["vectors"])


class Looker:
    """Looks at loop nests, unless it refuses; remembers what it was asked for."""

    def __init__(self, kernel: Kernel, refuses: bool = False) -> None:
        self.asked: list[Point] = []
        self._refuses = refuses
        self._made = Features(kernel.func, kernel.rule, kernel.match, kernel.target)

    def __call__(self, points: Sequence[Point]) -> Matrix | None:
        self.asked += points
        return None if self._refuses else self._made.plain(points)


@pytest.mark.parametrize("refuses", [False, True])
def test_trials_lead_to_the_fast_points(kernel: Kernel, refuses: bool) -> None:
    every = points(kernel)
    predictor, looker = Predictor(kernel), Looker(kernel, refuses)
    tried = [kernel.rule.default(kernel.match, kernel.target), *every[:10]]
    score = predictor.score([Trial(point, seconds(point)) for point in tried], looker)
    assert score is not None
    rest = [point for point in every if point not in tried]
    ranked = np.argsort(score(rest))
    fast = sorted(seconds(point) for point in rest)
    assert np.mean([seconds(rest[i]) for i in ranked[:6]]) < np.median(fast)


def test_without_trials_there_is_what_is_expected(kernel: Kernel) -> None:
    score = Predictor(kernel).score([], Looker(kernel))
    assert score is not None
    default = kernel.rule.default(kernel.match, kernel.target)
    slow = {knob: min(values) for knob, values in kernel.rule.knobs(kernel.match).items()}
    first, second = score([default, slow])
    assert first < second


def test_what_failed_is_not_looked_at_and_comes_last(kernel: Kernel) -> None:
    pytest.importorskip("xgboost")
    every = points(kernel)
    failed = every[3]
    history = [Trial(point, None if point == failed else seconds(point)) for point in every[:9]]
    looker = Looker(kernel)
    score = Predictor(kernel).score(history, looker)
    assert score is not None
    places = score(every)
    assert failed not in looker.asked
    assert places[3] > np.median(places)


def test_records_with_other_knobs_are_passed_over(kernel: Kernel) -> None:
    alien = Trial({"tile": 3}, 1e-9)
    one, other = (Predictor(kernel).score(h, Looker(kernel)) for h in ([alien], []))
    assert one is not None
    assert other is not None
    assert list(one(points(kernel))) == list(other(points(kernel)))


def test_ones_own_cost_model_that_is_of_no_use_gives_way_to_the_packages(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xgboost")
    monkeypatch.setattr(cost_model, "own", lambda: tmp_path / "own.ubj")
    assert cost_model.note(kernel.target) == ""
    foreign = b"of another XGBoost"
    cost_model.own().write_bytes(foreign + cost_model.blake3(foreign).digest())
    assert Predictor(kernel).guide == "learned"
    told = cost_model.note(kernel.target)
    assert told.startswith(f"points were ranked by the package's cost model: cost model {tmp_path}")
    assert told.endswith("made by another version of XGBoost; retrain it")


@pytest.mark.parametrize("content", [b"", b"x" * 100, None])
def test_a_cost_model_that_is_of_no_use_stops_nothing(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    if content is None:
        monkeypatch.setattr(cost_model, "COLUMNS", (*cost_model.COLUMNS, "one more"))
    else:
        foreign = tmp_path / "cost_model.ubj"
        foreign.write_bytes(content)
        monkeypatch.setattr(cost_model, "pretrained", lambda _: foreign)
    assert "without the learned cost model: cost model " in cost_model.note(kernel.target)
    every = points(kernel)
    score = Predictor(kernel).score([], Looker(kernel))
    assert score is not None
    assert len(set(score(every))) > 1  # analysis goes on alone
