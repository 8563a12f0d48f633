"""Candidates that crash, hang, eat memory or give wrong numbers: each alone is judged so."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faulty_rule
import numpy as np
import psutil
import pytest
import tvm

from hybridc.compiler import target
from hybridc.compiler.kernels import recurrence
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.model import Array
from hybridc.compiler.processes.child import Child, ChildError, first_of
from hybridc.compiler.tuning.candidates import answers
from hybridc.compiler.tuning.candidates.arguments import Arguments
from hybridc.compiler.tuning.candidates.bench import Bench
from hybridc.compiler.tuning.candidates.outcome import CandidateResult, Limits, MeasureError
from hybridc.compiler.tuning.candidates.pool import Pool
from hybridc.compiler.tuning.candidates.processes import DeadlineError
from hybridc.compiler.tuning.candidates.racing import Race
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.schedules.recurrence import Recurrence

QUICK = Race(seconds=0.01, sample=0.0001)
# Long enough for what is fine on a loaded machine, and for nothing that hangs.
LIMITS = Limits(build=8.0, run=4.0, memory=2**29)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1, workers=2, race=QUICK, limits=LIMITS) as opened:
        yield opened


@pytest.fixture(scope="module")
def bench(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    path = faulty_rule.written(tmp_path_factory.mktemp("plugins"))
    opened = pool.open(faulty_rule.kernel(path))
    assert pool.set_baseline(opened, faulty_rule.point("fine")).verdict is Verdict.OK
    return opened


@contextmanager
def child_of(module: str) -> Generator[Child]:
    child = Child(module)
    try:
        yield child
    finally:
        child.kill()


def measure(pool: Pool, bench: Bench, *faults: str) -> dict[int, CandidateResult]:
    found: list[CandidateResult] = []
    points = [faulty_rule.point(fault, other=1) for fault in faults]
    pool.measure(bench, points, None, found.append)
    # A baseline that turns out to have been disturbed is among the results as well.
    wanted, baseline = {point["fault"] for point in points}, {faulty_rule.FAULTS["fine"]}
    assert wanted <= {measured.point["fault"] for measured in found} <= wanted | baseline
    return {measured.point["fault"]: measured for measured in found}


def test_each_fault_gets_its_verdict_and_the_rest_goes_on(pool: Pool, bench: Bench) -> None:
    found = measure(pool, bench, *faulty_rule.FAULTS)
    for name, number in faulty_rule.FAULTS.items():
        measured = found[number]
        assert measured.verdict == faulty_rule.verdict(name), (name, measured)
        assert bool(measured.seconds) == (measured.verdict is Verdict.OK)
        assert bool(measured.detail) == (measured.verdict is not Verdict.OK)
    assert "there is no such tile" in found[faulty_rule.FAULTS["raise-in-build"]].detail
    assert "wanted" in found[faulty_rule.FAULTS["wrong"]].detail


def test_what_the_cost_model_sees_is_made_where_it_may_crash(
    pool: Pool, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "limits", replace(LIMITS, build=60.0))  # it imports a lot at first
    rows = pool.features(bench, [faulty_rule.point("fine"), faulty_rule.point("wrong")])
    assert rows is not None
    assert len(rows) == 2
    assert pool.features(bench, [faulty_rule.point("crash-in-build")]) is None
    assert pool.features(bench, [faulty_rule.point("fine")]) is not None


def test_what_lives_is_used_again(pool: Pool, bench: Bench) -> None:
    measure(pool, bench, "fine")
    before = set(pool.processes)
    measure(pool, bench, "also-fine", "wrong", "raise-in-build")
    assert set(pool.processes) == before


def test_a_kernel_that_cannot_run_unscheduled_is_refused(pool: Pool, tmp_path: Path) -> None:
    given = faulty_rule.kernel(faulty_rule.written(tmp_path))
    crashing = given.rule.schedule(None, faulty_rule.point("crash")).mod["main"]
    broken = type(given)("broken", crashing, given.rule, given.target, plugins=given.plugins)
    with pytest.raises(MeasureError, match="broken cannot be run unscheduled"):
        pool.open(broken)


def test_cold_caches_are_a_mode_and_processes_end_with_the_pool(tmp_path: Path) -> None:
    kernel = replace(faulty_rule.kernel(faulty_rule.written(tmp_path)), mode="cold")
    with Pool(1, workers=1, race=QUICK, limits=LIMITS) as opened:
        measured = opened.set_baseline(opened.open(kernel), faulty_rule.point("fine"))
        folder, started = opened.folder, opened.processes
    assert measured.verdict is Verdict.OK
    assert all(seconds > 0 for seconds in measured.seconds)
    assert len(started) == 2
    assert not folder.exists()
    assert not [number for number in started if psutil.pid_exists(number)]


@pytest.mark.parametrize("mode", ["warm", "cold"])
def test_calls_take_copies_of_weights_that_are_in_memory(
    mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations are the same ones in each call."""
    kernel = faulty_rule.kernel(faulty_rule.written(tmp_path))
    weights = int(np.prod([int(size) for size in kernel.func.params[0].shape])) * 4
    small = replace(kernel.target, l1=weights, l2=weights, l3=weights)
    seen: list[tuple[Any, ...]] = []
    library = {"main": lambda *given: seen.append(given)}
    monkeypatch.setattr(tvm.runtime, "load_module", lambda _: library)
    given = Arguments(replace(kernel, target=small, weights=(0,), mode=mode))
    given.reset()
    run = given.call("")
    for _ in range(6):
        run()
    assert len({id(call[0]) for call in seen}) == (3 if mode == "cold" else 1)
    assert len({id(call[1]) for call in seen}) == 1
    for call in seen:
        np.testing.assert_array_equal(call[0].numpy(), given.arrays[0])


@pytest.mark.parametrize("fault", ["hang-in-build", "hang"])
def test_whatever_is_at_work_ends_with_the_time(
    pool: Pool, bench: Bench, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hangs is ended at once and judged by nobody; what was measured before stays."""
    alone = 10_000.0  # the limit of the candidate
    monkeypatch.setattr(pool, "limits", replace(LIMITS, build=alone))
    monkeypatch.setattr(bench, "limit", alone)
    found: list[CandidateResult] = []
    points = [faulty_rule.point(each, other=1) for each in ("also-fine", fault)]
    start = time.monotonic()
    pool.end_at(start + 1.5)
    try:
        with pytest.raises(DeadlineError):
            pool.measure(bench, points, None, found.append)
        with pytest.raises(DeadlineError):
            pool.features(bench, points)
    finally:
        pool.end_at(inf)
    assert time.monotonic() - start < alone
    monkeypatch.undo()
    fine = {faulty_rule.FAULTS[each] for each in ("fine", "also-fine")}
    assert {measured.point["fault"] for measured in found} <= fine
    again = measure(pool, bench, "also-fine")  # no answer is left over from before
    assert again[faulty_rule.FAULTS["also-fine"]].verdict is Verdict.OK


def test_time_in_which_we_were_stopped_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop that slept, or a stopped job: what it waited for had no time either."""
    with child_of("hybridc.compiler.tuning.candidates.worker") as child:
        child.send({"do": "begin", "memory": 2**30, "cpus": [0]}, timeout=600.0)
        before, now = child.deadline, time.monotonic()
        clock = iter([now, now + 1000.0])
        told = SimpleNamespace(monotonic=lambda: next(clock))
        with monkeypatch.context() as patched:
            patched.setattr("hybridc.compiler.processes.child.time", told)
            patched.setattr("hybridc.compiler.processes.child._readable", lambda *_: [])
            assert first_of([child], 0.5) == []
        assert child.deadline > before + 900.0


def test_a_dead_child_tells_its_last_words() -> None:
    with (
        child_of("hybridc.no_such_module") as child,
        pytest.raises(ChildError, match="No module named"),
    ):
        child.ask({"do": "begin"}, 600.0)


def test_integers_are_exact_but_for_rounded_bytes() -> None:
    right = np.array([1, 2, 3], np.int32)
    assert answers.difference(right + np.int32(1), right)
    assert answers.difference(right, right) is None
    steps = np.array([1, 2, 255], np.uint8)
    assert answers.difference(steps - np.uint8(1), steps) is None
    assert answers.difference(steps - np.uint8(1), steps, quantised=False)
    assert answers.difference(steps - np.uint8(2), steps)


@pytest.mark.parametrize("layer", ["RNN", "LSTM", "GRU"])
def test_a_recurrence_does_not_make_answers_of_roundings(layer: str, tmp_path: Path) -> None:
    """With weights as large as inputs it would be chaotic, and every candidate wrong."""
    func = recurrence.kernel(layer, 64, 1, 128, reverse=False)
    kernel = Kernel(layer, func, Recurrence(), target.parse("cpu", 1), "fast-math")
    unscheduled, scheduled = tmp_path / "unscheduled.so", tmp_path / "scheduled.so"
    kernel.compile(None, unscheduled)
    kernel.compile(kernel.rule.default(kernel.match, kernel.target), scheduled)
    arguments = Arguments(kernel)
    answers_of: list[list[Array]] = []
    for library in (unscheduled, scheduled):
        arguments.reset()
        arguments.call(str(library))()
        answers_of.append([array.copy() for array in arguments.arrays])
    right, got = answers_of
    assert float(np.abs(right[-2]).mean()) > 0.01  # and it does not fade
    names = list(map(str, range(len(got))))
    told = answers.first_difference(names, got, right, kernel.terms, quantised=False)
    assert told is None


def test_floats_are_near_and_holes_show() -> None:
    right = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    assert answers.difference(right * np.float32(1 + 1e-6), right) is None
    hole = right.copy()
    hole[3, 5] = 0.0
    told = answers.difference(hole, right)
    assert told is not None
    assert "[3,5]" in told
    missing = np.where(right > 1, np.nan, right)
    assert answers.difference(missing, right)
    assert answers.difference(missing, missing) is None
