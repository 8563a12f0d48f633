"""Which points a tuning measures, from where it starts, and what it tells of them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import faulty_rule
import pytest
from fake_pool import SPACE, FakePool, exhaustive, judged, made, measured_in, tune, tuner
from tvm.script import from_source, tirx

from hybridc.compiler.errors import LogError
from hybridc.compiler.interfaces import Point, Trial
from hybridc.compiler.log import keys
from hybridc.compiler.log.access import open_log
from hybridc.compiler.log.lookup import Hit
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.tuning import (
    faulty_defaults,
    recording,
    strategies,
    summary,
    tasks,
    warm_start,
)
from hybridc.compiler.tuning.candidates.outcome import CandidateResult
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.options import Budget
from hybridc.compiler.tuning.progress import Update
from hybridc.compiler.tuning.tuner import Tuner


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faulty_rule.written(tmp_path_factory.mktemp("plugins"))


def remember(here: Tuner, measured: Sequence[CandidateResult]) -> None:
    """As if it had been measured."""
    (task,) = here.tasks
    records = [recording.record(task, each, 0) for each in measured]
    assert not here.log.add(records, recording.described(task)).faults.count


def test_every_point_is_measured_once_and_remembered(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhaustive(monkeypatch)
    pool = FakePool()
    tuned = tune(plugin, tmp_path / "log.db", pool)
    assert tuned.measured == len(pool.points) == SPACE
    assert tuned.failed == {"crash": 4}
    assert tuned.reason == "all trials are done"
    assert pool.points[0] == faulty_rule.point("fine")  # the default comes first
    assert set(measured_in(tmp_path / "log.db", plugin).values()) == {1}
    again = tune(plugin, tmp_path / "log.db", pool)
    assert (again.measured, again.reason) == (0, "all trials are done")


def test_the_summary_tells_of_the_winner(plugin: Path, tmp_path: Path) -> None:
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        tuned = tuner(plugin, opened, FakePool(), 12).run()
        rows = summary.kernels(tuned, opened)
    (row,) = rows
    assert row["default"] == pytest.approx(1e-3)
    assert row["best"] == pytest.approx(1e-3)
    assert row["point"] == faulty_rule.point("fine")
    assert row["calls"] == 3
    assert summary.gain(rows) == pytest.approx(1.0)
    told = summary.text(tuned, rows, "log.db", explain=True)
    assert "add-one" in told
    assert "log.db" in told
    json.dumps(summary.to_json(tuned, rows, "log.db"), allow_nan=False)


def test_a_model_without_kernels_to_tune_has_no_table_and_no_gain(
    plugin: Path, tmp_path: Path
) -> None:
    chosen, pool = strategies.catalogue().create("random"), cast("Any", FakePool())
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        tuned = Tuner([], opened, chosen, pool, Budget(4)).run()
        told = summary.text(tuned, summary.kernels(tuned, opened), "log.db", explain=True)
    assert told.splitlines()[0] == "0 points measured in 0 s"
    assert "there is no kernel to tune" in told
    assert "times as fast" not in told


def other(plugin: Path, size: int) -> Kernel:
    """The kernel of the plug-in in another size."""
    known = faulty_rule.kernel(plugin)
    text = known.func.script().replace("1024", str(size))
    return replace(known, name=f"add-one-{size}", func=from_source(text, {"T": tirx}))


def test_the_best_points_of_nearby_kernels_come_behind_the_default(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhaustive(monkeypatch)

    def liking(point: Point) -> CandidateResult:
        return CandidateResult(point, Verdict.OK, (1e-3 if point == liked else 2e-3,) * 6)

    liked = faulty_rule.point("also-fine", 1)
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        chosen = strategies.catalogue().create("random")
        known = tasks.distinct([(other(plugin, 2048), 1)])
        pool: Any = FakePool(judge=liking)
        Tuner(known, opened, chosen, pool, Budget(SPACE - 1)).run()
        pool.points.clear()
        (task,) = found = made(plugin)
        tuned = Tuner(found, opened, chosen, pool, Budget(4)).run()
        (cold,) = tasks.distinct([(replace(task.kernel, mode="cold"), 1)])
        hints = warm_start.hints(cold, [cold], opened, keys.of_toolchain())
    assert tuned.measured == 1 + 4
    assert pool.points[:2] == [faulty_rule.point("fine"), liked]
    assert hints == ()  # nothing was measured with cold caches


def test_kernels_of_one_tuning_start_from_each_others_best(plugin: Path, tmp_path: Path) -> None:
    known, fresh = tasks.distinct([(other(plugin, 2048), 1), (faulty_rule.kernel(plugin), 1)])
    known.history = [Trial(faulty_rule.point("fine"), 2.0), Trial(faulty_rule.point("wrong"), 1.0)]
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        found = warm_start.hints(fresh, (known, fresh), opened, keys.of_toolchain())
        assert found == (faulty_rule.point("wrong"),)
        known.history.pop()
        # The default is tried anyway.
        assert warm_start.hints(fresh, (known, fresh), opened, keys.of_toolchain()) == ()


def test_points_that_the_space_has_no_more_are_told_apart(plugin: Path, tmp_path: Path) -> None:
    """They are no trials, no winners, and not measured again."""
    path = tmp_path / "log.db"
    tune(plugin, path, FakePool(), 3)
    with open_log(str(path), plugins=(plugin,)) as opened:
        known = list(opened.records())
        stale = [{"fault": 99, "other": 0}, {"knob": 1}]
        opened.add(replace(known[0], point=point, seconds=(1e-6,) * 6) for point in stale)
        object.__setattr__(opened, "rules", None)  # as a log whose rules were installed then
        opened.add([replace(known[0], rule="gone", seconds=(1e-7,) * 6)])
        (task,) = made(plugin)
        described = [keys.of_target(task.kernel.target), keys.of_toolchain()]
        won = opened.lookup(task.workload.key, *described)
        assert isinstance(won, Hit)
        assert won.record.rule == "gone"
        pool = FakePool()
        tuned = tuner(plugin, opened, pool, 6).run()
        (row,) = summary.kernels(tuned, opened)
    assert tuned.measured == 3  # points more than before
    assert all(point not in stale for point in pool.points)
    assert (row["trials"], row["best"]) == (6, pytest.approx(1e-3))
    assert summary.gain([row]) == pytest.approx(1.0)


def test_the_default_is_no_trial(plugin: Path, tmp_path: Path) -> None:
    """Nor is it where it is measured again; and without trials it is all that is measured."""
    told: list[Update] = []

    class Lowering(FakePool):
        def measure(self, bench: Any, points: Any, incumbent: float | None, keep: Any) -> None:
            super().measure(bench, points, incumbent, keep)
            keep(judged(faulty_rule.point("fine")))

    alone = tune(plugin, tmp_path / "log.db", FakePool(), 0)
    assert (alone.measured, alone.tasks[0].trials) == (1, 0)
    tuned = tune(plugin, tmp_path / "log.db", Lowering(), 4, progress=told.append)
    assert (tuned.measured, tuned.tasks[0].trials) == (4, 4)
    assert max(update.done for update in told) == told[-1].trials == 4
    assert tuned.reason == "all trials are done"


@pytest.mark.parametrize("trials", [0, 2, 4])
def test_a_default_that_the_log_lacks_is_measured_whatever_else_it_knows(
    plugin: Path, tmp_path: Path, trials: int
) -> None:
    path, known = tmp_path / "log.db", [faulty_rule.point("wrong"), faulty_rule.point("also-fine")]
    with open_log(str(path), plugins=(plugin,)) as opened:
        remember(
            tuner(plugin, opened, FakePool()),
            [CandidateResult(point, Verdict.OK, (1.1e-3,) * 6) for point in known],
        )
        pool = FakePool()
        tuned = tuner(plugin, opened, pool, trials).run()
    assert pool.points[0] == faulty_rule.point("fine")
    assert tuned.tasks[0].trials == max(2, trials)
    assert tuned.measured == 1 + max(0, trials - 2)
    assert tune(plugin, path, FakePool(), trials).measured == 0


def test_a_default_that_was_lucky_once_is_measured_again(plugin: Path, tmp_path: Path) -> None:
    """Though it wins, as long as its two times are far apart; then what is faster does."""
    default, faster = faulty_rule.point("fine"), faulty_rule.point("also-fine")

    def timed(point: Point, seconds: float) -> CandidateResult:
        return CandidateResult(point, Verdict.OK, (seconds,) * 6)

    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        pool = FakePool(judge=lambda point: timed(point, 1e-3 if point == default else 0.8e-3))
        here = tuner(plugin, opened, pool, 1)
        (task,) = here.tasks
        known = [timed(default, 0.5e-3), timed(default, 1e-3), timed(faster, 0.8e-3)]
        remember(here, known)
        tuned = here.run()
        won = opened.lookup(task.workload.key, *recording.described(task)[1:])
    assert pool.points == [default, default, faster]
    assert tuned.measured == 0  # these are no trials
    assert isinstance(won, Hit)
    assert won.record.point == faster


def test_a_default_that_fails_is_measured_once(plugin: Path, tmp_path: Path) -> None:
    def failing(point: Point) -> CandidateResult:
        default = point == faulty_rule.point("fine")
        return CandidateResult(point, Verdict.CRASH, ()) if default else judged(point)

    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        pool = FakePool(judge=failing)
        first, second = (tuner(plugin, opened, pool, 0).run() for _ in "ab")
        (row,) = summary.kernels(second, opened)
    assert (first.measured, second.measured) == (1, 0)
    assert first.failed == {"crash": 1}
    assert (row["trials"], row["failed"], row["default"]) == (0, 0, None)  # it is no trial


@pytest.mark.parametrize("verdict", [Verdict.WRONG, Verdict.CRASH])
def test_a_default_that_is_wrong_is_named(plugin: Path, tmp_path: Path, verdict: Verdict) -> None:
    """In the call that finds it, which can say what differed, and in later ones."""

    def failing(point: Point) -> CandidateResult:
        default = point == faulty_rule.point("fine")
        return CandidateResult(point, verdict, (), "3 of 8 differ") if default else judged(point)

    named = "faulty default: add-one by rule faulty at fault=0 other=0"
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        pool: Any = FakePool(judge=failing)
        (first,) = faulty_defaults.told(tuner(plugin, opened, pool, 0).run(), opened)
        (second,) = faulty_defaults.told(tuner(plugin, opened, pool, 3).run(), opened)
    assert named in first
    assert "(3 of 8 differ); `hybridc compile` leaves the kernel to another rule" in first
    assert named in second
    assert " instead; please report it with the model" in second


def test_points_that_nobody_checked_are_measured_first_and_in_any_case(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhaustive(monkeypatch)
    names = ["hang", "also-fine", "wrong"]  # from fast to slow
    points = [faulty_rule.point(name, 1) for name in names]

    def unchecked(some: Sequence[Point]) -> list[CandidateResult]:
        times = [1e-6 * (1 + points.index(dict(point))) for point in some]
        return [
            CandidateResult(point, Verdict.UNCHECKED, (seconds,))
            for point, seconds in zip(some, times, strict=True)
        ]

    pool: Any = FakePool()
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        remember(tuner(plugin, opened, pool), unchecked(points[1:]))
        first = tuner(plugin, opened, pool, 2).run()
        assert pool.points == [faulty_rule.point("fine"), *points[1:]]
        assert (first.measured, first.failed) == (3, {})
        remember(tuner(plugin, opened, pool), unchecked(points[:1]))
        second = tuner(plugin, opened, pool, 2).run()
        assert (pool.points[3:], second.measured) == (points[:1], 1)
        assert tuner(plugin, opened, pool, 2).run().measured == 0


def test_a_default_outside_of_its_space_is_not_waited_for(plugin: Path) -> None:
    (task,) = made(plugin)
    assert task.fresh
    task.search = replace(task.search, default={"fault": 99, "other": 0})
    assert not task.fresh


def test_what_the_log_does_not_take_ends_the_tuning(plugin: Path, tmp_path: Path) -> None:
    """Else the default would be measured again and again."""
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        chosen = replace(strategies.catalogue().create("random"), seed=2**70)
        pool: Any = FakePool()
        with pytest.raises(
            LogError, match=r"log\.db does not accept the record: seed is not a whole"
        ):
            Tuner(made(plugin), opened, chosen, pool, Budget(4)).run()
    assert len(pool.points) == 1


def test_a_kernel_that_cannot_be_measured_is_passed_over(plugin: Path, tmp_path: Path) -> None:
    tuned = tune(plugin, tmp_path / "log.db", FakePool(broken=True))
    assert tuned.measured == 0
    assert tuned.reason == "no kernel can be measured"
    assert tuned.skipped == ("add-one cannot be built unscheduled",)
