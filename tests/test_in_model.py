"""What is fastest alone need not be so in a model, and what was timed there goes first."""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from log_records import record

from hybridc.compiler import driver
from hybridc.compiler.building.unscheduled import Unscheduled
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.interfaces import Point, Trial
from hybridc.compiler.log import access, keys
from hybridc.compiler.log.lookup import Hit
from hybridc.compiler.log.record import in_model as mode_of
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning import tasks
from hybridc.compiler.tuning.tasks import Task
from hybridc.compiler.tuning.trials import history
from hybridc.compiler.tuning.whole_model import in_model
from hybridc.compiler.tuning.whole_model.in_model import InModel
from hybridc.compiler.tuning.whole_model.rounds import Origin, Timed, ratio
from hybridc.compiler.tuning.whole_model.versions import Version

OPTIONS = Options(threads=1)
Given = dict[tuple[int, ...], Timed]
ONCE: Origin = ("me", 1.0)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Unscheduled:
    return driver.unscheduled(tiny_model, OPTIONS)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TuningLog]:
    with access.open_log(str(tmp_path / "log.sqlite")) as opened:
        yield opened


def measured(model: Unscheduled, log: TuningLog, times: Sequence[float]) -> Task:
    """The model's kernel, measured alone: its default takes the first of the times."""
    found = tasks.kernels(model.module, model.context, model.finish)
    (task,) = tasks.distinct(found)
    knob = next(knob for knob, values in task.search.space.items() if len(values) >= len(times))
    values = [value for value in task.search.space[knob] if value != task.search.default[knob]]
    points = [task.search.default] + [{**task.search.default, knob: value} for value in values]
    remember(task, log, zip(points, times, strict=False), task.kernel.mode)
    task.history = history(log.records(), task.kernel.rule_name, task.kernel.mode)
    return task


def remember(task: Task, log: TuningLog, times: Any, mode: str) -> None:
    described = task.workload, keys.of_target(task.kernel.target), keys.of_toolchain()
    workload, target, toolchain = (each.key for each in described)
    records = [
        record(
            workload=workload,
            target=target,
            toolchain=toolchain,
            rule=task.kernel.rule_name,
            point=point,
            seconds=(seconds,) * 8,
            mode=mode,
        )
        for point, seconds in times
    ]
    assert not log.add(records, described).faults.count


def winner(task: Task, log: TuningLog) -> Point:
    found = log.lookup(
        task.workload.key,
        keys.of_target(task.kernel.target),
        keys.of_toolchain(),
        mode=task.kernel.mode,
    )
    assert isinstance(found, Hit)
    return found.record.point


def in_this(model: Unscheduled, task: Task, log: TuningLog, deadline: float = 1e18) -> InModel:
    return InModel(log, 0, lambda _: None, deadline, model, {task: 1})


def called_with(monkeypatch: pytest.MonkeyPatch, seconds: Mapping[int, float]) -> list[int]:
    """Versions take these seconds instead of being called; how many there were each time."""
    counts: list[int] = []

    def call(_: Any, versions: Sequence[Any], *__: Any) -> None:
        counts.append(len(versions))
        for number, version in enumerate(versions):
            version.take({kernel: [seconds[number]] for kernel in version.workloads})

    monkeypatch.setattr(in_model, "_call", call)
    return counts


def test_the_model_decides_between_the_fastest_points(
    model: Unscheduled, log: TuningLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = measured(model, log, (1.0e-5, 0.8e-5, 0.7e-5))
    first, second, _ = (trial.point for trial in sorted(task.history, key=lambda t: t.cost))
    assert winner(task, log) == first
    counts = called_with(monkeypatch, {0: 1.0e-5, 1: 1.2e-5, 2: 0.9e-5})
    (placed,) = in_this(model, task, log).compare()
    assert winner(task, log) == second
    assert (placed.default, placed.best, placed.changed) == (1.0e-5, 0.9e-5, 1)
    assert "10.00 us at their defaults, 9.00 us with 1 tuned" in str(placed)
    again = in_this(model, task, log).compare()
    assert again == [placed]
    assert counts == [3]  # nothing is timed twice


def test_what_chooses_a_point_does_not_tell_its_gain() -> None:
    """Of points that are alike, the luckiest is no gain."""
    draw = random.Random(0)
    gains: list[float] = []
    for _ in range(200):
        timed: Given = {(n,): {ONCE: [draw.gauss(1.0, 0.05) for _ in range(24)]} for n in range(4)}
        gains.append(ratio(timed, (0,)))
    assert fmean(gains) == pytest.approx(1.0, abs=0.004)
    faster: Given = {(0,): {ONCE: [1.0] * 24}, (1,): {ONCE: [0.9] * 24}}
    assert ratio(faster, (0,)) == pytest.approx(0.9)
    single: Given = {(0,): {ONCE: [2.0]}, (1,): {ONCE: [1.0]}}
    assert ratio(single, (0,)) == 0.5  # it has no halves


def test_rounds_of_two_tunings_are_not_compared() -> None:
    """Of which the second one timed a point that the first one lacks, on a machine half as fast."""
    again: Origin = ("me", 2.0)
    both: Timed = {ONCE: [0.7] * 24, again: [2.0] * 24}
    timed: Given = {(0,): both, (1,): {again: [0.6] * 12 + [0.5] * 12}}
    assert ratio(timed, (0,)) == pytest.approx(0.275)
    apart: Given = {(0,): {ONCE: [1.0] * 24}, (1,): {again: [0.9] * 24}}
    assert ratio(apart, (0,)) == pytest.approx(0.9)  # by the medians


def test_the_log_tells_which_rounds_are_of_one_tuning(
    model: Unscheduled, log: TuningLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = measured(model, log, (1.0e-5, 0.8e-5))
    called_with(monkeypatch, {0: 1.0e-5, 1: 0.9e-5})
    in_this(model, task, log).compare()
    found = [each for each in log.records() if each.mode == mode_of(task.kernel.mode)]
    assert len(found) == 2
    assert len({(each.who, each.when) for each in found}) == 1
    # Later, when everything takes twice as long, another point is new.
    value = next(each for each in task.history if not task.is_default(each.point)).point
    knob = next(knob for knob in value if value[knob] != task.search.default[knob])
    third = next(
        {**value, knob: each}
        for each in task.search.space[knob]
        if each not in {value[knob], task.search.default[knob]}
    )
    task.history.append(Trial(third, 0.7e-5))
    called_with(monkeypatch, {0: 2.0e-5, 1: 0.8e-5})
    (placed,) = in_this(model, task, log).compare()
    assert placed.best / placed.default == pytest.approx(0.4)


def test_two_tunings_time_a_model_once(
    model: Unscheduled, log: TuningLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits for what the first finds, or, without time, does without."""
    task = measured(model, log, (1.0e-5, 0.5e-5))
    inside: list[Any] = []

    def call(_: Any, versions: Sequence[Any], *__: Any) -> None:
        inside.append(in_this(model, task, log, deadline=time.monotonic() - 1).compare())
        for version in versions:
            version.take({kernel: [1e-5] for kernel in version.workloads})

    monkeypatch.setattr(in_model, "_call", call)
    assert len(in_this(model, task, log).compare()) == 1
    assert inside == [[]]
    assert len(in_this(model, task, log).compare()) == 1
    assert len(inside) == 1


def test_a_default_that_is_fastest_in_the_model_stays(
    model: Unscheduled, log: TuningLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = measured(model, log, (1.0e-5, 0.5e-5))
    called_with(monkeypatch, {0: 1.0e-5, 1: 1.2e-5})
    (placed,) = in_this(model, task, log).compare()
    assert task.is_default(winner(task, log))
    assert placed.changed == 0
    assert placed.best == placed.default


def test_points_that_were_much_slower_alone_are_not_built(
    model: Unscheduled, log: TuningLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = measured(model, log, (1.0e-5, 2.0e-5))
    counts = called_with(monkeypatch, {0: 1.0e-5})
    in_this(model, task, log).compare()
    assert counts == [1]
    assert task.is_default(winner(task, log))


def test_nothing_is_built_once_the_time_is_used_up(model: Unscheduled, log: TuningLog) -> None:
    task = measured(model, log, (1.0e-5, 0.5e-5))
    assert in_this(model, task, log, deadline=time.monotonic() - 1).compare() == []
    assert len(log) == 2


def test_where_the_time_ends_the_best_is_still_compared_with_the_default(
    model: Unscheduled, log: TuningLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the first version built as the time ends: one more, however many points are left."""
    task = measured(model, log, (1.0e-5, 0.5e-5, 0.6e-5))
    counts = called_with(monkeypatch, {0: 1.0e-5, 1: 1.3e-5})
    now = iter([0.0, 2.0])
    monkeypatch.setattr(in_model.time, "monotonic", lambda: next(now, 2.0))
    in_this(model, task, log, deadline=1.0).compare()
    assert counts == [2]
    assert task.is_default(winner(task, log))


def test_kernels_are_timed_as_the_model_calls_them_on_a_quiet_machine(
    model: Unscheduled, log: TuningLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real calls: every version has a positive time for the kernel; on a busy one no other."""
    busy = 1.5
    monkeypatch.setattr(in_model.load.Load, "others", lambda _: busy)
    monkeypatch.setattr(in_model.host, "cores", lambda: 1)
    monkeypatch.setattr(in_model, "_REST", 0.0)
    task = measured(model, log, (1.0e-5, 0.9e-5))
    inside = in_this(model, task, log)
    (placed,) = inside.compare()
    assert task.is_default(winner(task, log))
    assert (placed.changed, len(log)) == (0, 3)
    assert "other programs kept 1.5 cores busy while the model ran" in inside.notes[0]
    busy = 0.1
    inside = in_this(model, task, log)
    inside.compare()
    timed = [record for record in log.records() if record.mode == mode_of(task.kernel.mode)]
    assert [task.is_default(record.point) for record in timed].count(False) == 1
    assert all(min(record.seconds) > 0 for record in timed)
    assert not inside.notes


def test_a_model_that_fits_but_once_is_left_to_what_was_measured_alone(
    model: Unscheduled, log: TuningLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = measured(model, log, (1.0e-5, 0.5e-5))
    monkeypatch.setattr(in_model, "_fitting", lambda _: 1)
    assert in_this(model, task, log).compare() == []
    assert not task.is_default(winner(task, log))


def test_few_calls_are_made_once_the_time_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_model, "_REST", 0.0)

    class Called:
        runs = 0

        def run(self, _: Any) -> dict[str, list[float]]:
            self.runs += 1
            return {}

    watch: Any = Called()
    in_model._call([watch], [Version({})], {}, time.monotonic(), 1.0)  # pyright: ignore[reportPrivateUsage]
    assert watch.runs == 4 * 4


def test_of_a_kernel_that_is_called_often_the_mean_counts() -> None:
    version = Version({}, workloads={"one": "key", "other": "key"})
    version.take({"one": [1.0, 2.0], "other": [6.0], "unknown": [9.0]})
    assert version.seconds == {"key": [3.0]}


def test_in_a_model_no_tie_takes_a_win_from_the_fastest(
    model: Unscheduled, log: TuningLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, the smaller of two points that are so near would win."""
    task = measured(model, log, (1.0e-5, 0.998e-5))
    called_with(monkeypatch, {0: 1.0e-5, 1: 1.002e-5})
    in_this(model, task, log).compare()
    assert task.is_default(winner(task, log))


def test_times_in_a_model_of_other_tools_go_first_as_well(
    model: Unscheduled, log: TuningLog
) -> None:
    task = measured(model, log, (1.0e-5, 0.5e-5))
    remember(task, log, [(task.search.default, 1.1e-5)], mode_of(task.kernel.mode))
    other = keys.Described.of("toolchain", {**keys.of_toolchain().data, "tvm": "0.28"})
    target = keys.of_target(task.kernel.target)
    found: Any = log.lookup(task.workload.key, target, other, mode=task.kernel.mode)
    assert task.is_default(found.record.point)
    assert {difference.name for difference in found.differs} == {"toolchain.tvm"}
