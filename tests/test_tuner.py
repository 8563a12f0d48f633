"""A tuning that is stopped, killed, not alone or lucky: nothing is lost or measured in vain."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faulty_rule
import pytest
from fake_pool import SPACE, FakeBench, FakePool, exhaustive, made, measured_in, tune

from hybridc.cli import main as entry
from hybridc.compiler.interfaces import Point
from hybridc.compiler.log import keys
from hybridc.compiler.log.access import open_log
from hybridc.compiler.log.lookup import Hit
from hybridc.compiler.tuning import recording, run_off, strategies
from hybridc.compiler.tuning.candidates.outcome import CandidateResult, Keep
from hybridc.compiler.tuning.options import Budget
from hybridc.compiler.tuning.result import Tuned
from hybridc.compiler.tuning.tasks import Task
from hybridc.compiler.tuning.tuner import Tuner
from hybridc.compiler.tuning.whole_model import in_model


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faulty_rule.written(tmp_path_factory.mktemp("plugins"))


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


def test_ctrl_c_just_before_saving_loses_nothing(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shielded, early = recording.uninterrupted, iter([True])

    @contextmanager
    def late() -> Generator[None]:
        if next(early, False):
            raise KeyboardInterrupt
        with shielded():
            yield

    monkeypatch.setattr(recording, "uninterrupted", late)
    stopped = tune(plugin, tmp_path / "log.db", FakePool())
    assert stopped.interrupted
    assert stopped.measured
    assert sum(measured_in(tmp_path / "log.db", plugin).values()) == stopped.measured


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


MAIN = "from hybridc.cli.main import main; main()"
KILLED = """
import sys, os, signal
from pathlib import Path
sys.path.insert(0, {tests!r})
import fake_pool
from hybridc.compiler.tuning import tasks
tasks.NOISE = -1.0
def die(count):
    if count == 13:
        os.kill(os.getpid(), signal.SIGKILL)
pool = fake_pool.FakePool(during=die)
fake_pool.tune(Path({plugin!r}), Path({log!r}), pool, lease=1.0)
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
def test_the_command_is_stopped_and_goes_on(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(tmp_path / "log.db")
    call = ["tune", str(tiny_model), "--log", path, "--threads", "1", "--workers", "1"]
    running = subprocess.Popen(
        [sys.executable, "-c", MAIN, *call, "--trials", "500", "-v"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Jobs in the background ignore the signal, and hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith(b"0/500 "):  # the default was measured
            running.send_signal(signal.SIGINT)
            break
    out, _ = running.communicate()
    assert running.returncode == 130
    assert b"ended: interrupted" in out
    monkeypatch.setattr(in_model, "_ROUNDS", (2, 6))  # each rests a quarter of a second
    with open_log(path, readonly=True) as opened:  # more than the default where the signal is late
        wanted = max(0, len(list(opened.records())) - 1) + 3
    assert entry.run([*call, "--trials", str(wanted), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["measured"] <= 4
    (kernel,) = found["kernels"]
    assert kernel["trials"] == wanted or found["ended"] == "the expected gain is within the noise"
    assert kernel["best"] > 0


def test_a_tuner_ends_where_another_does_the_trials_that_were_left(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its claim, which fails, and its look into the log."""
    exhaustive(monkeypatch)
    path, refused = tmp_path / "log.db", threading.Event()
    begun = threading.Event()

    def during(_: int) -> None:
        begun.set()
        assert refused.wait(600)

    other = threading.Thread(target=lambda: tune(plugin, path, FakePool(during=during), 4))

    class Second(Tuner):
        recalls = 0
        turns = 0

        def _recall(self, *tasks: Task) -> None:
            self.recalls += 1
            if self.recalls == 2:  # the claim was refused
                refused.set()
                other.join()
            super()._recall(*tasks)

        def _turn(self, busy: set[Task]) -> bool:
            self.turns += 1
            assert self.turns < 10, "it spins"
            return super()._turn(busy)

    open_log(str(path)).close()
    other.start()
    assert begun.wait(600)
    pool: Any = FakePool()
    with open_log(str(path), plugins=(plugin,)) as opened:
        chosen = strategies.catalogue().create("random")
        tuned = Second(made(plugin), opened, chosen, pool, Budget(4)).run()
    assert (tuned.measured, tuned.reason) == (0, "all trials are done")


@dataclass
class LuckyPool(FakePool):
    """The first time that it measures a point says 40 % less than it takes, but for the default."""

    def measure(
        self, bench: FakeBench, points: Sequence[Point], incumbent: float | None, keep: Keep
    ) -> None:
        def luckily(measured: CandidateResult) -> None:
            lucky = self.points.count(measured.point) == 1
            shorter = tuple(seconds * (0.6 if lucky else 1.0) for seconds in measured.seconds)
            keep(replace(measured, seconds=shorter + shorter * (not lucky)))

        super().measure(bench, points, incumbent, luckily)


def test_a_winner_by_luck_is_measured_again(plugin: Path, tmp_path: Path) -> None:
    """All points but the default are slower; each seems faster once."""
    with open_log(str(tmp_path / "log.db"), plugins=(plugin,)) as opened:
        pool: Any = LuckyPool()
        strategy = strategies.catalogue().create("random")

        def tune() -> list[int]:
            Tuner(made(plugin), opened, strategy, pool, Budget(3)).run()
            return [count for count in Counter(map(str, pool.points)).values() if count > 1]

        assert 2 <= len(tune()) <= 1 + run_off.MOST  # the default, and some that seemed to win
        (task,) = made(plugin)
        target, toolchain = keys.of_target(task.kernel.target), keys.of_toolchain()
        found = opened.lookup(task.workload.key, target, toolchain)
        assert isinstance(found, Hit)
        assert found.record.point == faulty_rule.point("fine")  # the default after all
        measured = len(pool.points)
        tune()
        assert len(pool.points) == measured  # what is confirmed stays so
