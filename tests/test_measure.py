"""Samples and their summary, on durations that are given, not on a clock."""

import json
import math
from dataclasses import asdict
from itertools import count
from pathlib import Path

import pytest

from hybridc.compiler.hardware import host, load, peaks
from hybridc.compiler.hardware.peaks import Peaks
from hybridc.compiler.measurement import measure
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.target import Target

TARGET = Target("x86-64-v3", frozenset({"avx2", "fma"}), 1, 2**15, 2**20, 2**22)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a tenth of a second each time it is read."""
    ticks = count()
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(ticks) / 10)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRIDC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "peaks.json"


def test_median_quartiles_and_spread() -> None:
    samples = Samples((4.0, 1.0, 3.0, 2.0, 5.0))
    assert samples.median == 3.0
    assert samples.quartiles == (2.0, 4.0)
    assert samples.spread == pytest.approx(2 / 3)
    assert Samples((7.0,)).quartiles == (7.0, 7.0)
    assert Samples((7.0,)).spread == 0.0


def test_the_summary_is_in_milliseconds() -> None:
    data = Samples((0.001, 0.002, 0.003)).to_json()
    assert data["median_ms"] == 2.0
    assert data["samples"] == 3
    assert Samples((0.001, 0.002, 0.003)).text().startswith("2 ms")


@pytest.mark.usefixtures("clock")
def test_a_slow_call_is_made_often_enough() -> None:
    calls: list[None] = []
    samples = measure.latency(lambda: calls.append(None), seconds=0.0, warmup=0.0, at_least=5)
    assert len(samples.seconds) == 5
    assert len(calls) == 6  # one to warm up
    assert samples.median == pytest.approx(0.1)


@pytest.mark.usefixtures("clock")
def test_time_that_ends_leaves_the_fewest_samples() -> None:
    """A call of 0.1 s that were to be made 2995 times, in two seconds."""
    found = measure.latency(lambda: None, seconds=1.0, warmup=0.0, at_least=2995, longest=2.0)
    assert measure.MIN_SAMPLES <= len(found.seconds) < 20
    assert math.isinf(found.percentile(99.9).high)


@pytest.mark.usefixtures("clock")
def test_a_fast_call_stops_at_the_limit() -> None:
    samples = measure.latency(lambda: None, seconds=1e9, warmup=0.0, at_least=1, at_most=7)
    assert len(samples.seconds) == 7


def test_a_fast_call_is_made_longer_than_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those of a fifth of a second so many are kept as may be, from the first to the last."""
    now = count()
    calls: list[None] = []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(now) / 1000)
    call = lambda: calls.append(None)  # noqa: E731
    found = measure.latency(call, seconds=1.0, warmup=0.0, at_most=7)
    assert len(found.seconds) == 7
    assert 90 <= len(calls) <= 110  # the clock is read twice for each
    assert measure._thinned(range(100), 4) == (0, 25, 50, 75)  # type: ignore[comparison-overlap]


def test_of_all_rounds_so_many_durations_are_kept_as_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a call that takes a second more each time, evenly from ten rounds of seven calls."""
    durations, now = count(1), [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: sum(now))
    call = lambda: now.append(next(durations))  # noqa: E731
    never = lambda _: False  # noqa: E731
    found = measure.latency(call, seconds=1e9, warmup=0.0, at_least=1, at_most=7, clear=never)
    assert found.seconds == tuple(range(2, 72, 10))  # the first was to warm up


@pytest.mark.usefixtures("clock")
def test_as_many_durations_are_kept_as_are_wanted_at_least() -> None:
    found = measure.latency(lambda: None, seconds=0.0, warmup=0.0, at_least=9, at_most=7)
    assert len(found.seconds) == 9


@pytest.mark.usefixtures("clock")
def test_the_time_is_used_and_then_it_stops() -> None:
    # Each sample reads the clock twice: 0.2 s of the 2 s.
    assert len(measure.latency(lambda: None, seconds=2.0, warmup=0.0, at_least=1).seconds) == 10


def test_a_precision_without_instructions_has_the_rate_of_fp32() -> None:
    machine = Peaks(flops=100.0, bandwidth=10.0, int8=400.0)
    assert [machine.rate(name) for name in ("fp32", "bf16", "int8")] == [100.0, 100.0, 400.0]


def test_peaks_are_measured_by_kernels_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", "1")  # what is set here is taken back afterwards
    found = peaks.measure(TARGET)
    assert found.flops > 0
    assert found.bandwidth > 0
    assert found.bf16 is None  # AVX2 has no instructions for it
    assert found.int8 is not None
    assert found.int8 > 0
    assert "GFLOP/s fp32" in found.text()


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"a": 1}', '{"a": {"flops": 1, "bandwidth": 2}}']
)
def test_peaks_are_measured_once_and_a_damaged_cache_is_replaced(
    damage: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(damage)
    made = iter([Peaks(1.0, 2.0), Peaks(3.0, 4.0)])
    monkeypatch.setattr(load.Load, "others", lambda _: 0.0)
    monkeypatch.setattr(peaks, "measure", lambda _: next(made))
    assert peaks.peaks(TARGET) == Peaks(1.0, 2.0)
    assert peaks.peaks(TARGET) == Peaks(1.0, 2.0)
    assert peaks.peaks(TARGET, fresh=True) == Peaks(3.0, 4.0)
    (entry,) = json.loads(cache.read_text()).items()
    assert host.cpu_model() in entry[0]
    assert entry[1] == asdict(Peaks(3.0, 4.0))


def test_peaks_of_a_busy_machine_are_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load.Load, "others", lambda _: 1.0)
    monkeypatch.setattr(peaks, "measure", lambda _: Peaks(1.0, 2.0))
    assert peaks.peaks(TARGET) == Peaks(1.0, 2.0)
    assert not cache.exists()
