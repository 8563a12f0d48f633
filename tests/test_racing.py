"""When a race is over, where it leads, and how a changing pace is taken out of it."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridc.compiler.interfaces import Point
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.tuning.candidates import racing, repeats
from hybridc.compiler.tuning.candidates.bench import Bench
from hybridc.compiler.tuning.candidates.drift import UNSTEADY, Drift
from hybridc.compiler.tuning.candidates.outcome import CandidateResult
from hybridc.compiler.tuning.candidates.pool import Pool
from hybridc.compiler.tuning.candidates.processes import DeadlineError
from hybridc.compiler.tuning.candidates.racing import Race, Sample

TIMES = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=60)


@given(TIMES)
def test_the_interval_holds_the_median_and_lies_in_the_samples(samples: list[float]) -> None:
    low, high = racing.interval(samples)
    assert low <= median(samples) <= high
    assert low in samples
    assert high in samples


@pytest.mark.parametrize("count", [6, 7, 11, 20, 51, 200])
def test_the_interval_covers_the_true_median(count: int) -> None:
    draw = random.Random(count)
    trials = [[draw.lognormvariate(0.0, 0.3) for _ in range(count)] for _ in range(2000)]
    bounds = [racing.interval(samples) for samples in trials]
    assert sum(low <= 1.0 <= high for low, high in bounds) / len(bounds) > 0.93


class Course:
    """A clock that runs with the samples that are taken."""

    def __init__(self, draw: Callable[[int], Sample]) -> None:
        self.now, self.taken, self._draw = 0.0, 0, draw

    def take(self, count: int) -> list[Sample]:
        samples = [self._draw(self.taken + i) for i in range(count)]
        self.taken += count
        self.now += sum(seconds for seconds, _ in samples)
        return samples

    def run(self, race: Race, incumbent: float | None = None) -> tuple[tuple[float, ...], bool]:
        return race.run(self.take, lambda: self.now, incumbent)


def test_a_steady_candidate_is_soon_known() -> None:
    course = Course(lambda _: (1e-3, True))
    samples, disturbed = course.run(Race())
    assert (len(samples), disturbed) == (6, False)


def test_a_noisy_one_runs_until_its_median_is_known_or_its_time_is_up() -> None:
    draw = random.Random(1)
    race = Race(seconds=1.0)
    quiet = Course(lambda _: (1e-3 * draw.uniform(0.99, 1.01), True))
    samples, _ = quiet.run(race)
    low, high = racing.interval(samples)
    assert high - low <= race.width * low
    wild = Course(lambda i: (1e-3 * (1 + i % 2), True))
    wild.run(race)
    assert wild.now >= race.seconds


def test_a_loser_is_out_early() -> None:
    draw = random.Random(2)
    slow = Course(lambda _: (1e-3 * draw.uniform(1.1, 1.4), True))
    slow.run(Race(), incumbent=1e-3)
    alone = Course(lambda _: (1e-3 * draw.uniform(1.1, 1.4), True))
    alone.run(Race())
    assert slow.taken < alone.taken
    hopeless = Course(lambda _: (1.0, True))
    hopeless.run(Race(), incumbent=1e-3)
    assert hopeless.taken == 1


def test_samples_that_were_disturbed_are_left_out() -> None:
    course = Course(lambda i: (1e-3, True) if i % 3 else (9e-3, False))
    samples, disturbed = course.run(Race())
    assert set(samples) == {1e-3}
    assert not disturbed


def test_where_all_are_disturbed_the_race_ends_and_says_so() -> None:
    course = Course(lambda _: (1e-2, False))
    samples, disturbed = course.run(Race(seconds=0.1))
    assert disturbed
    assert set(samples) == {1e-2}


def test_a_pace_that_changes_is_taken_out() -> None:
    drift = Drift()
    drift.read(0.0, [1.0])
    drift.read(10.0, [1.08])
    drift.read(20.0, [1.09])
    assert drift.corrected(15.0, [2.16]) == pytest.approx((2.0,))
    assert drift.corrected(0.0, [2.0]) == (2.0,)
    assert drift.corrected(99.0, [2.18]) == pytest.approx((2.0,))
    assert drift.worst == pytest.approx(0.08)
    assert drift.steady
    drift.read(100.0, [1.2])
    assert not drift.steady


def test_one_reading_that_was_disturbed_is_no_pace() -> None:
    drift = Drift()
    for when, seconds in enumerate([1.0, 1.09, 1.0, 1.89, 1.0]):
        drift.read(float(when), [seconds])
    for between in (0.5, 1.5, 2.5, 3.5):
        assert drift.corrected(between, [1.0]) == (1.0,)
    assert drift.worst == 0.0


def test_a_disturbed_baseline_makes_no_slow_point_fast() -> None:
    """A point as fast as the default, measured beside a baseline that took 2.8 times as long."""
    drift = Drift(reference=1.0)
    drift.read(0.0, [2.8])
    drift.read(1.0, [2.8])
    assert not drift.steady
    assert drift.corrected(0.5, [1.2]) == pytest.approx((1.2 / (1 + UNSTEADY),))


def test_a_reference_that_was_disturbed_is_lowered() -> None:
    drift = Drift()
    drift.read(0.0, [1.5])
    drift.read(1.0, [1.0])
    assert not drift.overstated
    drift.read(2.0, [1.02])
    assert drift.overstated
    drift.lower()
    assert drift.reference == pytest.approx(1.0)
    assert not drift.overstated
    assert drift.steady
    assert drift.corrected(3.0, [1.02]) == pytest.approx((1.0,))
    assert drift.worst == 0.0


def test_noise_is_no_drift() -> None:
    drift = Drift(reference=1.0)
    assert drift.corrected(0.0, [3.0]) == (3.0,)
    drift.read(0.0, [1.005])
    drift.read(10.0, [0.995])
    assert drift.corrected(5.0, [3.0]) == (3.0,)
    assert drift.steady


@given(st.floats(0.5, 2.0), TIMES)
def test_correction_keeps_ratios(pace: float, samples: list[float]) -> None:
    drift = Drift(reference=1.0)
    drift.read(0.0, [pace])
    corrected = drift.corrected(1.0, samples)
    assert [a * samples[0] for a in corrected] == pytest.approx(
        [corrected[0] * b for b in samples], rel=1e-9
    )


class Timed(Pool):
    """Builds and runs nothing; the baseline's first `slow` times are half as much again."""

    def __init__(self, slow: int) -> None:
        super().__init__(1)
        self.slow, self.seen = slow, 0

    def _build(
        self, file: Path, points: Sequence[Any]
    ) -> Iterator[tuple[Any, Path | CandidateResult]]:
        return ((point, Path(str(point["size"]))) for point in points)

    def _time(
        self,
        bench: Bench,
        point: Point,
        library: Path,
        incumbent: float | None,
        race: Race | None = None,
    ) -> CandidateResult:
        known = library == bench.baseline or bench.baseline is None
        self.seen += known
        slow = known and self.seen <= self.slow
        return CandidateResult(point, Verdict.OK, (1.5e-3 if slow else 1e-3,) * 6)


@pytest.mark.parametrize("slow", [0, 2, 3])
def test_a_default_that_was_disturbed_is_measured_again_beside_the_others(
    slow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridc.compiler.tuning.candidates.pool._JUST_NOW", 0.0)
    monkeypatch.setattr("hybridc.compiler.tuning.candidates.pool._REST", 0.0)
    bench: Any = Bench(cast("Any", None), Path("kernel"), Path("wanted"), 1.0)
    pool, found = Timed(slow), list[CandidateResult]()
    first = pool.set_baseline(bench, {"size": 0})
    assert first.time == pytest.approx(1.5e-3 if slow else 1e-3)
    pool.measure(bench, [{"size": size} for size in (1, 2, 3)], None, found.append)
    others = {each.point["size"]: each.time for each in found}
    assert len(found) == 3 + bool(slow)
    assert others.get(0, 1e-3) == pytest.approx(1e-3)
    assert len(found[-1].seconds) > len(first.seconds) or not slow
    for size in (1, 2, 3):  # none of them seems faster than the default
        assert others[size] == pytest.approx(1e-3, rel=0.11)


def test_a_default_that_was_disturbed_is_told_though_the_others_are_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else what was measured until then would seem faster than it."""
    monkeypatch.setattr("hybridc.compiler.tuning.candidates.pool._JUST_NOW", 0.0)
    monkeypatch.setattr("hybridc.compiler.tuning.candidates.pool._REST", 0.0)

    class Interrupted(Timed):
        def _time(self, bench: Bench, point: Point, *rest: Any, **named: Any) -> CandidateResult:
            if point.get("size") == 5:
                raise KeyboardInterrupt
            return super()._time(bench, point, *rest, **named)

    bench: Any = Bench(cast("Any", None), Path("kernel"), Path("wanted"), 1.0)
    pool, found = Interrupted(2), list[CandidateResult]()
    pool.set_baseline(bench, {"size": 0})
    with pytest.raises(KeyboardInterrupt):
        pool.measure(bench, [{"size": size} for size in range(1, 6)], None, found.append)
    assert {each.point["size"]: each.time for each in found}[0] == pytest.approx(1e-3)


def test_a_baseline_is_kept_though_the_time_ends_before_its_times_agree() -> None:
    class Late(Timed):
        def _time(self, *given: Any, **named: Any) -> CandidateResult:
            if self.seen:
                raise DeadlineError
            return super()._time(*given, **named)

    bench: Any = Bench(cast("Any", None), Path("kernel"), Path("wanted"), 1.0)
    found = Late(0).set_baseline(bench, {"size": 0})
    assert (found.verdict, found.time) == (Verdict.OK, pytest.approx(1e-3))


def measured(seconds: float, verdict: Verdict = Verdict.OK) -> CandidateResult:
    return CandidateResult({"size": 1}, verdict, (seconds,) * 3 if verdict is Verdict.OK else ())


def test_passes_that_disagree_count_by_the_faster() -> None:
    """A machine that is disturbed adds time; nothing takes any off."""
    found = repeats.combined([measured(2.0), measured(1.0), measured(1.01)])
    assert found.seconds == (1.0,) * 3 + (1.01,) * 3
    assert not repeats.agreed([measured(2.0), measured(1.0)])
    assert repeats.agreed([measured(2.0), measured(1.0), measured(1.02)])
    assert repeats.agreed([measured(float(i + 1)) for i in range(repeats.MOST)])


def test_a_failure_in_any_pass_is_the_result() -> None:
    assert repeats.combined([measured(1.0), measured(0.0, Verdict.CRASH)]).verdict is Verdict.CRASH
    assert repeats.dropped([measured(0.0, Verdict.WRONG)], None)


def test_only_what_lost_beyond_doubt_is_out() -> None:
    assert not repeats.dropped([measured(2.0)], 1.0)
    assert repeats.dropped([measured(3.0)], 1.0)
    assert not repeats.dropped([measured(3.0), measured(1.5)], 1.0)
    assert not repeats.dropped([measured(3.0)], None)
