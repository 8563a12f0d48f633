"""What else the machine did while calls were timed, and what is made of times that it disturbed."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import made_up
import numpy as np
import pytest
from test_driver import classifier

from hybridc.compiler import driver
from hybridc.compiler.assurance import timing
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.assurance.recheck import recheck
from hybridc.compiler.hardware import host, load
from hybridc.compiler.measurement import conditions, measure
from hybridc.compiler.measurement.conditions import Conditions, Watch
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.orchestration.judging import objection
from hybridc.compiler.orchestration.steering import Steering

QUIET = Conditions(busy=0.05, free=0, preempted=12.0, pace=40e-6, drift=1.01)
BUSY = replace(QUIET, busy=1.4)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (QUIET, ""),
        (BUSY, "other programs kept 1.4 cores busy"),
        (replace(BUSY, free=2), ""),  # there was room for them
        (replace(QUIET, busy=0.2), ""),
        (replace(QUIET, busy=0.2, bearable=0.1), "other programs kept 0.2 cores busy"),
        (replace(QUIET, busy=0.2, bearable=0.1, free=1), ""),
        (replace(QUIET, drift=1.3), "the clock changed by 30%"),
        (
            replace(BUSY, drift=2.0),
            "other programs kept 1.4 cores busy and the clock changed by 100%",
        ),
    ],
)
def test_what_disturbs_is_told(found: Conditions, text: str) -> None:
    assert found.text() == text
    assert found.quiet is (text == "")
    told = json.loads(json.dumps(found.to_json()))
    assert told["quiet"] is found.quiet
    assert replace(Conditions.of_json(told), pace=found.pace) == found


def test_a_watch_sees_other_programs_and_a_clock_that_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paces = iter([40e-6, 50e-6, 51e-6, 41e-6])
    monkeypatch.setattr(conditions, "_pace", lambda: next(paces))
    monkeypatch.setattr(load.Load, "others", lambda _: 0.9)
    monkeypatch.setattr(load, "INTERVAL", 0.0)
    monkeypatch.setattr(host, "cores", lambda: 8)
    watch = Watch(threads=2)
    watch.glance()
    found = watch.conditions()
    assert (found.busy, found.free, found.pace) == (0.9, 6, 40e-6)
    assert found.drift == pytest.approx(1.25)
    assert found.preempted >= 0


def test_one_slow_look_at_the_clock_is_no_slower_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    paces = iter([40e-6, 50e-6, 40.4e-6, 40e-6])
    monkeypatch.setattr(conditions, "_pace", lambda: next(paces))
    watch = Watch(threads=2)
    watch.glance()
    assert watch.conditions().drift == pytest.approx(1.01)


def test_a_fixed_computation_has_a_pace() -> None:
    assert 1e-6 < Watch(threads=1).conditions().pace < 1.0


def test_waiting_ends_with_the_others_or_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter([1.0, 0.8, 0.1])
    monkeypatch.setattr(load, "busy_cores", lambda: next(seen))
    monkeypatch.setattr(host, "cores", lambda: 2)
    conditions.wait(2, 60.0)
    assert list(seen) == []
    monkeypatch.setattr(load, "busy_cores", lambda: 1.0)
    conditions.wait(2, 0.0)


@pytest.mark.parametrize(
    ("contract", "bearable"),
    [
        (Contract(), 0.25),
        (Contract("5ms"), 0.25),
        (Contract("p75<=5ms"), 0.25),
        (Contract("p90<=5ms"), 0.1),
        (Contract("p99<=5ms", max_size="1MB"), 0.1),
        (Contract(min_throughput=5.0), 0.1),  # a mean has the late calls in it
    ],
)
def test_late_calls_want_a_quieter_machine(
    contract: Contract, bearable: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load.Load, "others", lambda _: 0.2)
    monkeypatch.setattr(conditions, "_pace", lambda: 40e-6)  # whatever this machine's clock does
    monkeypatch.setattr(load, "INTERVAL", 0.0)
    monkeypatch.setattr(host, "cores", lambda: 2)
    monkeypatch.setattr(measure, "latency", lambda *_, **__: Samples((0.001,) * 400))
    session: Any = _Session()
    found = timing.timed(session, {}, contract)
    assert found.conditions is not None
    assert (found.conditions.bearable, found.conditions.busy) == (bearable, 0.2)
    assert bool(found.disturbed) is (bearable < 0.2)


class _Session:
    """Runs nothing, on two threads."""

    threads = 2

    def run(self, *_: object) -> list[Any]:
        """No outputs."""
        return []


Turn = tuple[tuple[float, ...], Conditions]
FAST, MIXED, SLOW = (0.004,) * 40, (0.004,) * 4 + (0.050,) * 36, (0.010,) * 40


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Samples, int, list[float]]]:
    """Measure where times and conditions of each turn are given; also how many it took."""

    def measured(
        contract: Contract, *turns: Turn, left: float | None = None
    ) -> tuple[Samples, int, list[float]]:
        rest, waits = list(turns), list[float]()
        monkeypatch.setattr(measure, "latency", lambda *_, **__: Samples(rest[0][0]))
        monkeypatch.setattr(Watch, "conditions", lambda _: rest.pop(0)[1])
        monkeypatch.setattr(conditions, "wait", lambda _, seconds, __: waits.append(seconds))
        found = timing.timed(_Session(), {}, contract, left)  # type: ignore[arg-type]
        return Samples(found.seconds, found.conditions), len(turns) - len(rest), waits

    return measured


LIMIT = Contract("5ms")


def test_a_limit_that_a_busy_machine_may_have_broken_is_measured_again(measured: Any) -> None:
    found, turns, waits = measured(LIMIT, (MIXED, BUSY), (FAST, QUIET), (FAST, QUIET))
    assert (found, turns, waits) == (Samples(FAST, QUIET), 2, [5.0])
    # The quieter one stands, whatever it says.
    found, turns, _ = measured(LIMIT, (MIXED, BUSY), (SLOW, QUIET))
    assert (found, turns) == (Samples(SLOW, QUIET), 2)


def test_a_limit_that_holds_on_a_busy_machine_holds(measured: Any) -> None:
    found, turns, _ = measured(LIMIT, (FAST, BUSY))
    assert (found.seconds, turns) == (FAST, 1)


@pytest.mark.parametrize("turn", [(SLOW, BUSY), (SLOW, QUIET), (MIXED, QUIET)])
def test_a_limit_that_is_broken_anyhow_is_measured_once(measured: Any, turn: Turn) -> None:
    assert measured(LIMIT, turn)[1] == 1


def test_a_machine_that_stays_busy_is_told(measured: Any) -> None:
    worse = replace(BUSY, busy=1.9)
    found, turns, _ = measured(LIMIT, (MIXED, worse), (MIXED, BUSY), (MIXED, worse))
    assert (found.conditions, turns) == (BUSY, 3)
    assert found.text().endswith(", while other programs kept 1.4 cores busy")
    assert found.to_json()["conditions"]["quiet"] is False


def test_nothing_is_measured_again_without_a_budget_for_it(measured: Any) -> None:
    assert measured(LIMIT, (MIXED, BUSY), left=0.0)[1] == 1


def test_other_stages_get_most_of_a_budget(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds are less than a quarter of 60, and more than one of 30."""
    for left, turns in ((60.0, 2), (30.0, 1)):
        ticks = itertools.count(0.0, 10.0)
        clock = SimpleNamespace(perf_counter=lambda ticks=ticks: next(ticks))
        monkeypatch.setattr(timing, "time", clock)
        assert measured(LIMIT, (MIXED, BUSY), (FAST, QUIET), left=left)[1] == turns


def test_throughput_is_measured_again_too(measured: Any) -> None:
    least = Contract(min_throughput=200)
    assert measured(least, (MIXED, BUSY), (FAST, QUIET))[:2] == (Samples(FAST, QUIET), 2)
    assert measured(least, (SLOW, BUSY))[1] == 1


def test_times_that_stages_are_compared_by_are_measured_again(measured: Any) -> None:
    """Nothing is limited, or no call kept the limit; most calls took ten times as long as some."""
    for contract in (Contract(), Contract("1us")):
        assert measured(contract, (MIXED, BUSY), (FAST, QUIET))[:2] == (Samples(FAST, QUIET), 2)
        assert measured(contract, (SLOW, BUSY))[1] == 1
    assert measured(Contract("1h"), (MIXED, BUSY))[1] == 1


def test_nothing_is_learnt_of_times_that_were_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [made_up.go(Steering("fusion"), made_up.all_better())]
    Plain = made_up.Measured  # noqa: N806 - a class
    monkeypatch.setattr(
        made_up, "Measured", lambda *given, **more: Plain(*given, **more, disturbed="others ran")
    )
    found.append(made_up.go(Steering("fusion"), made_up.all_better()))
    assert [bool(each.learnt) for each in found] == [True, False]
    assert [each.hybrid.disturbed for each in found] == [False, True]
    assert "the machine was not quiet" in found[1].hybrid.text()
    assert found[1].hybrid.to_json()["disturbed"] is True


def test_what_is_not_kept_says_under_what(measured: Any) -> None:
    disturbed = measured(LIMIT, (MIXED, BUSY), (MIXED, BUSY), (MIXED, BUSY))[0]
    found = Measured(disturbed.percentile(50), disturbed.throughput, disturbed=disturbed.disturbed)
    (told,) = LIMIT.judge(found)
    assert told.startswith("latency: wanted at most 5 ms, measured 50 ms, while other programs")
    assert "while other programs" in objection(LIMIT, found, found)
    assert Contract("1s").clauses(found)[0].text() == "latency: wanted at most 1 s, measured 50 ms"


def test_the_certificate_and_verify_tell_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "conditions", lambda _: QUIET)
    artifact = driver.compile(classifier(), contract=Contract("1h"))
    assert artifact.certificate["latency"]["conditions"]["quiet"] is True
    assert recheck(artifact).machine == ()
    monkeypatch.setattr(Watch, "conditions", lambda _: replace(BUSY, pace=60e-6))
    found = recheck(artifact)
    assert found.holds
    assert found.machine == (
        "other programs kept 1.4 cores busy while calls were timed",
        "the same computation takes 1.5 times as long as when the artifact was certified",
    )
    strange = replace(artifact, certificate={**artifact.certificate, "latency": [np.pi]})
    assert len(recheck(strange).machine) == 1
