"""Tuning as people use it: within a compilation, for a dashboard, with packages missing."""

import json
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faulty_rule
import pytest
import tvm
from fake_pool import FakePool, made

from hybridc.cli import _output
from hybridc.cli import main as entry
from hybridc.compiler import driver, pipeline
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance import timing
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import LogError, PluginError
from hybridc.compiler.interfaces import Trial
from hybridc.compiler.log import access
from hybridc.compiler.log.access import open_log
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.measurement.clock import Clock
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.orchestration import digests
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.orchestration.workshop import Workshop
from hybridc.compiler.tuning import run_off, session, strategies
from hybridc.compiler.tuning.options import Budget, Tuning
from hybridc.compiler.tuning.tuner import Tuner
from hybridc.compiler.tuning.whole_model import in_model


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faulty_rule.written(tmp_path_factory.mktemp("plugins"))


def compiled(
    model: Path, out: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> dict[str, Any]:
    call = ["compile", str(model), "-o", str(out), "--json", "--threads", "1", *options]
    assert entry.run(call) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert bool(said.err) == ("--trials" in options)
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_a_compilation_tunes_and_the_next_one_knows(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_output, "_PAUSE", 0.0)
    monkeypatch.setattr(in_model, "_ROUNDS", (2, 4))  # each rests a quarter of a second
    log, out = tmp_path / "log.sqlite", tmp_path / "tiny.hyb"
    first = compiled(tiny_model, out, capsys, "--trials", "3", "--log", str(log))
    with open_log(str(log), readonly=True) as opened:
        records = list(opened.records())
    points = {tuple(record.point.items()) for record in records}
    assert len(points) == 1 + 3  # the default, and the trials
    # Beside them are the winner's and the default's as often as they were measured again, and in
    # the model the default's and those of points that are not much slower.
    assert 4 + 1 <= len(records) <= 4 + 2 * run_off.MOST + 4
    assert {record.mode for record in records} == {"warm", "model-warm"}
    assert all(record.verdict is Verdict.OK for record in records)
    assert "tuned by 4 measurements: all trials are done" in first["notes"]
    assert first["records"]["hits"] == 1
    (kernel,) = Artifact.load(out).lock.values()
    assert kernel["point"] in [dict(record.point) for record in records]
    again = compiled(tiny_model, out, capsys, "--trials", "3", "--log", str(log))
    assert "tuned by 0 measurements: all trials are done" in again["notes"]
    # What was contested is measured once more, and may have another winner.
    (kernel,) = Artifact.load(out).lock.values()
    frozen = compiled(tiny_model, tmp_path / "frozen.hyb", capsys, "--frozen", "--log", str(log))
    assert frozen["records"]["hits"] == 1
    (other,) = Artifact.load(tmp_path / "frozen.hyb").lock.values()
    assert other == kernel


@pytest.mark.parametrize("slower", [False, True])
def test_a_tuning_is_told_whatever_becomes_of_its_stage(
    slower: bool, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = SimpleNamespace(
        interrupted=False, tasks=("one",), measured=3, reason="all trials are done", skipped=()
    )
    calls: list[object] = []

    def timed(*_: object) -> Samples:
        calls.append(None)
        return Samples((0.008 + 0.001 * len(calls),) * 20)

    def tune(*_: object) -> Any:
        return SimpleNamespace(tuned=tuned, models=(), notes=())

    monkeypatch.setattr(session, "tune", tune)
    monkeypatch.setattr(timing, "timed", timed)
    options = Options(threads=1, contract=Contract("5ms"), tuning=Tuning(3))
    if slower:  # as if other schedules had been chosen
        made = iter("ab")
        monkeypatch.setattr(digests, "of_artifact", lambda _: next(made))
        monkeypatch.setattr(Workshop, "in_turns", lambda *_: None)
    report = driver.compile_source(
        tiny_model, replace(options, steering=Steering(resume=False))
    ).report
    assert {each.stage: each.verdict for each in report.decisions}["tuned"] == "rolled back"
    assert len(calls) == 1 + slower
    assert report.notes.count("tuned by 3 measurements: all trials are done") == 1
    assert "tuned by 3 measurements" in report.summary()


def test_a_compilation_tells_what_its_tuning_lacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: what was told of algorithms is known already."""
    tuned = SimpleNamespace(interrupted=False, tasks=(), skipped=())
    known, lacking = "of the algorithms, 1 time was disturbed", "ranked without the cost model"
    found = SimpleNamespace(tuned=tuned, models=(), notes=(lacking, known))
    monkeypatch.setattr(session, "tune", lambda *_: found)
    (step,) = pipeline.parse(plans.SCHEDULING)
    context, how = SimpleNamespace(notes=[known]), SimpleNamespace(how=Tuning(1))
    parts: Any = (Options(), how, None, context, (step,), Clock(lambda _: None))
    inside = session.TuneInside(*parts)
    inside.before(step, tvm.IRModule({}))
    assert inside.context.notes == [known, lacking]


@pytest.mark.parametrize("name", ["tpe", "cma-es", "nsga2"])
def test_the_study_of_optuna_lives_in_the_log(tmp_path: Path, plugin: Path, name: str) -> None:
    optuna = pytest.importorskip("optuna")
    path = tmp_path / "log.sqlite"
    strategy = strategies.catalogue().create(f"{name}{{storage=sqlite:///{path}}}")
    pool: Any = FakePool()
    with open_log(str(path), plugins=(plugin,)) as opened:
        tuned = Tuner(made(plugin), opened, strategy, pool, Budget(18)).run()
        times = {each.seconds[0] for each in opened.records() if each.verdict is Verdict.OK}
    assert tuned.measured == 19
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{path}")
    study = optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{path}")
    assert summary.n_trials == 19
    assert study.best_trial.user_attrs["seconds"] == pytest.approx(min(times))
    assert 2.718281828459045**study.best_value == pytest.approx(min(times))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with open_log(str(path), plugins=(plugin,)) as opened:
        assert len(opened) == 19


def test_kernels_of_one_space_have_studies_of_their_own(tmp_path: Path, plugin: Path) -> None:
    """And what another tuner told already is not told twice."""
    optuna = pytest.importorskip("optuna")
    storage = f"sqlite:///{tmp_path}/optuna.sqlite"
    strategy = strategies.catalogue().create(f"tpe{{storage={storage}}}")
    (task,) = made(plugin)
    other = replace(task.search, name="another kernel")
    trials = [Trial(task.search.point(number), 1e-3) for number in range(5)]
    strategy.observe(task.search, trials[:3])
    strategy.observe(task.search, trials[2:])
    strategy.observe(other, trials[:2])
    found = optuna.get_all_study_summaries(storage)
    assert sorted(study.n_trials for study in found) == [2, 5]


def test_the_password_of_a_storage_is_not_shown(tmp_path: Path, plugin: Path) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/nowhere"
    chosen = strategies.catalogue().create(f"tpe{{storage={url}}}")
    pool: Any = FakePool()
    with open_log(str(tmp_path / "log.sqlite"), plugins=(plugin,)) as opened:
        tuner = Tuner(made(plugin), opened, chosen, pool, Budget(4))
        with pytest.raises(PluginError, match=r"'postgresql\+psycopg://me:\*\*\*@") as caught:
            tuner.run()
    assert "secret" not in str(caught.value)
    with pytest.raises(PluginError, match="tpe: storage 'nonsense://': Can't load plugin"):
        strategies.catalogue().create("tpe{storage=nonsense://}")


def test_a_log_that_can_only_be_read_is_said_before_a_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def models() -> Iterator[Any]:
        raise AssertionError("a model was read")
        yield

    with open_log(str(tmp_path / "log.db")) as opened:
        closed = replace(opened, readonly=True)
        monkeypatch.setattr(access, "open_log", lambda *_, **__: closed)
        with pytest.raises(LogError, match=r"log\.db is read-only, and a tuning writes to it"):
            session.tune(models(), Options(), Tuning(4))


MISSING = {
    "optuna": (["--strategy", "tpe"], "tpe needs Optuna: pip install"),
    "cmaes": (["--strategy", "cma-es"], "cma-es needs cmaes: pip install"),
    "psycopg": (["--log", "postgresql://me@localhost/x"], "needs psycopg: pip install"),
}


@pytest.mark.parametrize("package", MISSING)
def test_what_is_not_installed_is_named_with_the_command(
    package: str,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    options, said = MISSING[package]
    assert entry.run(["tune", str(tiny_model), *options]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "hybridc[" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", ["tune", "compile"])
def test_kernels_are_not_measured_on_more_threads_than_there_are(
    verb: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [verb, str(tiny_model), "--trials", "2", "--log", str(tmp_path / "log.sqlite")]
    assert entry.run([*call, "--threads", "5000"]) == 2
    said = capsys.readouterr().err
    assert "threads=5000 requested, but this process may use only" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "log.sqlite").exists()


def test_a_log_in_parquet_needs_pyarrow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_log(str(tmp_path / "log.sqlite")).close()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    call = ["log", "export", str(tmp_path / "x.parquet"), "--log", str(tmp_path / "log.sqlite")]
    assert entry.run(call) == 2
    assert "pip install 'hybridc[parquet]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--seed", str(2**63)], ["--strategy", f"random{{seed={2**63}}}"]]
)
def test_a_seed_that_no_record_can_hold_is_said_before_anything_is_measured(
    options: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["tune", str(tiny_model), "--log", str(tmp_path / "log.sqlite"), *options]
    assert entry.run(call) == 2
    said = capsys.readouterr().err
    assert "a seed must be a whole number of at most 9223372036854775807" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "log.sqlite").exists()


def test_a_model_that_cannot_be_run_is_tuned_by_its_kernels_alone(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("an index lies outside")

    monkeypatch.setattr(in_model, "_call", fail)
    options = Options(log=str(tmp_path / "log.sqlite"), threads=1)
    outcome = session.tune([driver.unscheduled(tiny_model, options)], options, Tuning(2))
    assert outcome.tuned.measured == 3
    (note,) = (note for note in outcome.notes if "not timed in it" in note)
    assert note.startswith("kernels of tiny not timed in it: ")
    assert "an index lies outside" in note
