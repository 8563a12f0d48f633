"""A tuning that is stopped, killed, or not alone: nothing is lost, and nothing measured twice."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faulty_rule
import pytest
from tvm.script import from_source, tirx

from hybridc.compiler import strategies
from hybridc.compiler.errors import LogError
from hybridc.compiler.interfaces import Point, Trial
from hybridc.compiler.log import keys
from hybridc.compiler.log.access import open_log
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning import nearby, summary, tasks
from hybridc.compiler.tuning.drift import Drift
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.outcome import Keep, Measured, MeasureError
from hybridc.compiler.tuning.plan import Budget
from hybridc.compiler.tuning.staff import DeadlineError
from hybridc.compiler.tuning.tasks import Task
from hybridc.compiler.tuning.tuner import Tuned, Tuner

SPACE = 22  # points of the faulty rule


@dataclass(eq=False)
class FakeBench:
    kernel: Kernel
    drift: Drift = field(default_factory=Drift)


@dataclass
class FakePool:
    """Measures nothing: a point's time follows from its knobs, and some fail."""

    mode: str = "warm"
    pause: float = 0.0
    points: list[Point] = field(default_factory=list[Point])
    during: Callable[[int], None] = lambda _: None
    broken: bool = False
    late: int | None = None  # the trial at which the time is used up
    end: float = 0.0

    def end_at(self, when: float) -> None:
        self.end = when

    def open(self, kernel: Kernel) -> FakeBench:
        if self.broken:
            raise MeasureError(f"{kernel.name} cannot be built unscheduled")
        return FakeBench(kernel)

    def features(self, bench: FakeBench, points: Sequence[Point]) -> None:
        """Nobody may look."""
        del bench, points

    def set_baseline(
        self, bench: FakeBench, point: Point, seconds: float | None = None
    ) -> Measured:
        del bench
        if seconds is None:
            self.points.append(point)
        return judged(point)

    def measure(
        self, bench: FakeBench, points: Sequence[Point], incumbent: float | None, keep: Keep
    ) -> None:
        del bench, incumbent
        for point in points:
            if len(self.points) == self.late:
                raise DeadlineError
            time.sleep(self.pause)
            self.during(len(self.points))
            self.points.append(point)
            keep(judged(point))


def judged(point: Point) -> Measured:
    fault = point["fault"]
    if fault in (2, 7):
        return Measured(point, Verdict.CRASH, (), "it fell")
    seconds = 1e-3 * (1 + ((fault * 7 + point["other"] * 3) % 11) / 10)
    return Measured(point, Verdict.OK, (seconds,) * 6)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faulty_rule.written(tmp_path_factory.mktemp("plugins"))


def made(plugin: Path) -> list[Task]:
    return tasks.distinct([(faulty_rule.kernel(plugin), 3)])


def tuner(plugin: Path, opened: TuningLog, pool: Any, trials: int = SPACE, **options: Any) -> Tuner:
    chosen = strategies.catalogue().create("random")
    return Tuner(made(plugin), opened, chosen, pool, Budget(trials), **options)


def tune(plugin: Path, path: Path, pool: Any, trials: int = SPACE, **options: Any) -> Tuned:
    with open_log(str(path), plugins=(plugin,)) as opened:
        return tuner(plugin, opened, pool, trials, **options).run()


def measured_in(path: Path, plugin: Path) -> Counter[tuple[tuple[str, int], ...]]:
    with open_log(str(path), plugins=(plugin,)) as opened:
        return Counter(tuple(sorted(record.point.items())) for record in opened.records())


def exhaustive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never stop early."""
    monkeypatch.setattr(tasks, "NOISE", -1.0)


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
        rows = summary.kernels(tuned, opened, "warm")
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


def other(plugin: Path, size: int) -> Kernel:
    """The kernel of the plug-in in another size."""
    known = faulty_rule.kernel(plugin)
    text = known.func.script().replace("1024", str(size))
    return replace(known, name=f"add-one-{size}", func=from_source(text, {"T": tirx}))


def test_the_best_points_of_nearby_kernels_come_behind_the_default(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhaustive(monkeypatch)

    def liking(point: Point) -> Measured:
        return Measured(point, Verdict.OK, (1e-3 if point == liked else 2e-3,) * 6)

    liked = faulty_rule.point("also-fine", 1)
    monkeypatch.setitem(globals(), "judged", liking)
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        chosen = strategies.catalogue().create("random")
        known = tasks.distinct([(other(plugin, 2048), 1)])
        Tuner(known, opened, chosen, FakePool(), Budget(SPACE)).run()  # type: ignore[arg-type]
        pool = FakePool()
        (task,) = found = made(plugin)
        tuned = Tuner(found, opened, chosen, pool, Budget(4)).run()  # type: ignore[arg-type]
        cold = nearby.hints(task, found, opened, keys.of_toolchain(), "cold")
    assert tuned.measured == 4
    assert pool.points[:2] == [faulty_rule.point("fine"), liked]
    assert cold == ()  # nothing was measured with cold caches


def test_kernels_of_one_tuning_start_from_each_others_best(plugin: Path, tmp_path: Path) -> None:
    known, fresh = tasks.distinct([(other(plugin, 2048), 1), (faulty_rule.kernel(plugin), 1)])
    known.history = [Trial(faulty_rule.point("fine"), 2.0), Trial(faulty_rule.point("wrong"), 1.0)]
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        found = nearby.hints(fresh, (known, fresh), opened, keys.of_toolchain(), "warm")
        assert found == (faulty_rule.point("wrong"),)
        known.history.pop()
        # The default is tried anyway.
        assert nearby.hints(fresh, (known, fresh), opened, keys.of_toolchain(), "warm") == ()


def test_ctrl_c_keeps_what_was_measured_and_a_second_call_goes_on(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhaustive(monkeypatch)
    uninterrupted = FakePool()
    tune(plugin, tmp_path / "whole.db", uninterrupted)

    def interrupt(count: int) -> None:
        if count == 13:
            signal.raise_signal(signal.SIGINT)

    first, second = FakePool(during=interrupt), FakePool()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background
    try:
        stopped = tune(plugin, tmp_path / "log.db", first)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.interrupted
    assert stopped.measured == 13
    assert len(first.points) == 13
    assert sum(measured_in(tmp_path / "log.db", plugin).values()) == 13
    rest = tune(plugin, tmp_path / "log.db", second)
    assert rest.measured == SPACE - 13
    counts = measured_in(tmp_path / "log.db", plugin)
    assert len(counts) == SPACE
    assert set(counts.values()) == {1}


def test_two_tuners_share_the_work(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhaustive(monkeypatch)
    path, pools = tmp_path / "log.db", [FakePool(pause=0.02), FakePool(pause=0.02)]
    open_log(str(path)).close()
    results: list[Tuned] = []
    threads = [
        threading.Thread(target=lambda pool=pool: results.append(tune(plugin, path, pool)))
        for pool in pools
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert sum(tuned.measured for tuned in results) == SPACE
    assert set(measured_in(path, plugin).values()) == {1}


KILLED = """
import sys, os, signal
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_tuner
from hybridc.compiler.tuning import tasks
tasks.NOISE = -1.0
def die(count):
    if count == 13:
        os.kill(os.getpid(), signal.SIGKILL)
pool = test_tuner.FakePool(during=die)
test_tuner.tune(Path({plugin!r}), Path({log!r}), pool, lease=1.0)
"""


def test_a_tuner_that_is_killed_loses_one_round_at_most(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhaustive(monkeypatch)
    path = tmp_path / "log.db"
    code = KILLED.format(tests=str(Path(__file__).parent), plugin=str(plugin), log=str(path))
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-500:]
    kept = measured_in(path, plugin)
    assert sum(kept.values()) == 9  # the default, and one whole round
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rest = tune(plugin, path, FakePool(), lease=1.0)
    assert rest.measured == SPACE - 9
    assert set(measured_in(path, plugin).values()) == {1}


def test_what_the_log_does_not_take_ends_the_tuning(plugin: Path, tmp_path: Path) -> None:
    """Else the default would be measured again and again."""
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        chosen = replace(strategies.catalogue().create("random"), seed=2**70)
        pool: Any = FakePool()
        with pytest.raises(LogError, match=r"log\.db takes no such record: seed is no whole"):
            Tuner(made(plugin), opened, chosen, pool, Budget(4)).run()
    assert len(pool.points) == 1


def test_a_kernel_that_cannot_be_measured_is_passed_over(plugin: Path, tmp_path: Path) -> None:
    tuned = tune(plugin, tmp_path / "log.db", FakePool(broken=True))
    assert tuned.measured == 0
    assert tuned.reason == "no kernel can be measured"
    assert tuned.skipped == ("add-one cannot be built unscheduled",)


def test_the_time_ends_it(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of which each trial takes a second."""
    pool: Any = FakePool()
    clock = SimpleNamespace(
        monotonic=lambda: float(len(pool.points)), time=time.time, time_ns=time.time_ns
    )
    monkeypatch.setattr("hybridc.compiler.tuning.tuner.time", clock)
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        chosen = strategies.catalogue().create("random")
        tuned = Tuner(made(plugin), opened, chosen, pool, Budget(SPACE, 5.0)).run()
    assert tuned.reason == "the time is used up"
    assert tuned.measured == 5  # a round has as many trials as fit into what is left
    assert pool.end == 5.0


def test_no_time_is_not_all_the_time(plugin: Path, tmp_path: Path) -> None:
    pool: Any = FakePool()
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        chosen = strategies.catalogue().create("random")
        tuned = Tuner(made(plugin), opened, chosen, pool, Budget(SPACE, 0.0)).run()
    assert (tuned.measured, tuned.reason) == (0, "the time is used up")


def test_a_round_is_cut_where_the_time_ends(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhaustive(monkeypatch)
    tuned = tune(plugin, tmp_path / "log.db", FakePool(late=6))
    assert (tuned.reason, tuned.interrupted, tuned.measured) == ("the time is used up", False, 6)
    assert len(tuned.tasks[0].history) == 6
    assert sum(measured_in(tmp_path / "log.db", plugin).values()) == 6
    rest = tune(plugin, tmp_path / "log.db", FakePool())  # nobody claims the kernel any more
    assert rest.measured == SPACE - 6


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_command_is_stopped_and_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    path = str(tmp_path / "log.db")
    call = [sys.executable, "-c", "from hybridc.cli.main import main; main()", "tune"]
    call += [str(tiny_model), "--trials", "4", "--log", path, "--threads", "1", "--workers", "1"]
    running = subprocess.Popen(
        [*call, "-v"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Jobs in the background ignore the signal, and hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith(b"1/4 "):
            running.send_signal(signal.SIGINT)
    out, _ = running.communicate()
    assert running.returncode == 130
    assert b"ended: interrupted" in out
    done = subprocess.run([*call, "--json"], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert 0 < found["measured"] < 4
    (kernel,) = found["kernels"]
    assert kernel["trials"] == 4 or found["ended"].startswith("what may still be gained")
    assert kernel["best"] > 0
