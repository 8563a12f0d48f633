"""Looks at a measurement that goes on until it is clear, and the sample that is timed."""

import itertools
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx_models import FLOAT, build, node, noise

from hybridc.compiler import driver
from hybridc.compiler.assurance import certify, confidence, looks, slowest, timing
from hybridc.compiler.assurance.confidence import LEVEL
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.assurance.slowest import Slowest
from hybridc.compiler.measurement import conditions, measure
from hybridc.compiler.measurement.conditions import Watch
from hybridc.compiler.measurement.measure import Samples

# A quiet machine with a clock that stands still.
QUIET = conditions.Conditions(busy=0.0, free=0, preempted=0.0, pace=40e-6, drift=1.0)


def test_all_looks_together_are_as_sure_as_one() -> None:
    spent = 0.0
    for measurement in range(2 * looks.ANEW):
        found = list(itertools.islice(looks.levels(measurement), looks.MOST))
        assert all(LEVEL < each < 1 for each in found)
        spent += sum(1 - each for each in found)
    assert spent == pytest.approx(1 - LEVEL)


def _kept(limit: float, draw: Any, runs: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many of so many measurements keep a limit on the median; `draw` gives a second's."""
    monkeypatch.setattr(conditions, "_pace", lambda: 40e-6)
    monkeypatch.setattr(Watch, "conditions", lambda _: QUIET)

    def latency(_: Any, *, clear: Any, **__: Any) -> Samples:
        found: tuple[float, ...] = ()
        for look in range(looks.MOST):
            found += tuple(draw())
            if look < looks.MOST - 1 and clear(Samples(found)):
                break
        return Samples(found)

    monkeypatch.setattr(measure, "latency", latency)
    session: Any = SimpleNamespace(threads=1, run=lambda *_: [])
    contract = Contract(limit)
    found = (timing.timed(session, {}, contract).percentile(50) for _ in range(runs))
    return sum(each.high <= limit for each in found)


def test_a_broken_limit_is_seldom_kept_however_often_it_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The median is the limit itself: of looks at 95 % each, one in six would say it is kept."""
    rng = np.random.default_rng(0)
    # The bounds of the machine's phases are left out, for they hide some of the error.
    monkeypatch.setattr(measure, "_PHASES", 10**9)
    kept = _kept(1.0, lambda: 1 + 0.1 * rng.standard_normal(40), 300, monkeypatch)
    assert kept <= 0.05 * 300 + 2 * math.sqrt(300 * 0.05 * 0.95)


def test_what_is_clear_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, draws = np.random.default_rng(0), list[int]()

    def draw() -> Any:
        draws.append(1)
        return 1 + 0.01 * rng.standard_normal(40)

    assert _kept(1.1, draw, 10, monkeypatch) == 10
    assert len(draws) == 10


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_first_look_takes_few_calls_more(share: float) -> None:
    level = next(looks.levels(0))
    assert confidence.values_for_quantile(share, level) <= 1.12 * confidence.values_for_quantile(
        share
    )


@dataclass
class _Session:
    """Calls that take as many seconds as their input says, on a clock of its own."""

    now: float = 0.0
    calls: list[float] = field(default_factory=list[float])

    def perf_counter(self) -> float:
        """The clock."""
        return self.now

    def run(self, _: object, feed: Any) -> list[Any]:
        """No outputs; the first call of all takes a second more."""
        self.now += float(feed["x"][0]) + (0.0 if self.calls else 1.0)
        self.calls.append(float(feed["x"][0]))
        return []


def _chosen(
    seconds: list[float],
    monkeypatch: pytest.MonkeyPatch,
    *,
    verified: bool = True,
    sizes: list[int] | None = None,
) -> tuple[int, _Session]:
    session = _Session()
    monkeypatch.setattr(slowest, "time", session)
    counts = sizes or [1] * len(seconds)
    feeds = [{"x": np.full(n, each)} for n, each in zip(counts, seconds, strict=True)]
    found = Slowest()
    if verified:
        found.seen = [seconds[0] + 1.0, *seconds[1:]]  # the first was slow for being the first
        session.calls.append(0.0)
    given: Any = session
    feed = found.of(given, feeds, None)
    assert found.of(given, feeds[:1], None) is feed  # once for all candidates
    return next(i for i, each in enumerate(feeds) if each is feed), session


@pytest.mark.parametrize(
    ("seconds", "place"),
    [
        ([0.01], 0),
        ([0.01] * 5, 0),
        ([0.01, 0.0101, 0.01], 0),  # noise
        ([0.01, 0.01, 0.02, 0.011], 2),
        ([0.02, 0.01, 0.01], 0),
        ([0.01] * 40 + [0.03] + [0.01] * 40, 40),
        ([3.0, 4.0, 5.0], 2),
    ],
)
@pytest.mark.parametrize("verified", [True, False])
def test_the_slowest_sample_is_timed(
    seconds: list[float], place: int, verified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [1 + (each == max(seconds)) for each in seconds]
    found, session = _chosen(seconds, monkeypatch, verified=verified, sizes=sizes)
    assert found == place
    # A second, two calls of the first, what its first one took more, and one that was under way.
    assert session.now <= 1.0 + 1.0 + 2 * seconds[0] + max(seconds)


def test_what_is_large_is_called_first_where_time_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.2] * 50 + [0.3] + [0.2] * 50
    sizes = [4] * 50 + [9] + [4] * 50
    assert _chosen(seconds, monkeypatch, verified=False, sizes=sizes)[0] == 50


@pytest.mark.usefixtures("hasty")
def test_the_certificate_says_which_sample_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def seconds(_: Any, feed: Any) -> float:
        calls.append(len(feed["x"]))
        return float(len(feed["x"]))

    monkeypatch.setattr(slowest, "_seconds", seconds)
    monkeypatch.setattr(
        certify, "time", SimpleNamespace(perf_counter=itertools.count(0, 9).__next__)
    )
    model = build([node("Relu", "x", "y")], [("x", FLOAT, ["n", 4])], [("y", FLOAT, None)])
    data = [{"x": noise(rows, 4)} for rows in (2, 5, 3)]
    made = driver.compile(model, calibration=data, contract=Contract("1h"), shapes={"n": "2..5"})
    assert made.certificate["timed_on"] == "sample 2 of 3"
    assert made.certificate["sizes"]["measured_at"] == {"n": 5}
    assert set(calls) == {2, 3, 5}
