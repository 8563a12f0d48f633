"""The verb `log` on a log that knows the kernels of a small model."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from filled_logs import fill, model

from hybridc.cli import main as entry
from hybridc.compiler.log import access, unchecked
from hybridc.compiler.log.record import Verdict

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def tuned(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which for each kernel another point than the default is fastest."""
    path = tmp_path_factory.mktemp("log") / "log.sqlite"
    fill(path, source)
    return path


@pytest.fixture
def call(tuned: Path) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(
            entry.commands, ["log", *map(str, arguments), "--log", str(tuned)]
        )
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            return getattr(done.exception, "exit_code", 1), "", str(done.exception)
        return done.exit_code, done.stdout, done.stderr

    return run


def test_ls_and_show(call: Run) -> None:
    code, out, _ = call("ls", "--json", "--limit", 3)
    rows = json.loads(out)
    assert (code, len(rows)) == (0, 3)
    assert rows[0]["workload"][:12] in call("ls")[1]
    shown = json.loads(call("show", rows[0]["workload"][:8], "--json")[1])
    assert shown["data"][0] == "kernel"
    assert call("ls", "--workload", rows[0]["workload"][:8])[0] == 0
    code, _, said = call("show", "00000000")
    assert code == 2
    assert "no description with a key of 00000000" in said
    assert call("show", "xyz")[0] == 2
    assert [call("ls", "--limit", number)[0] for number in (0, -1)] == [2, 2]


def test_stats(call: Run, source: Path) -> None:
    data = json.loads(call("stats", "--json")[1])
    assert (
        data["records"] == data["verdicts"]["ok"] == sum(each["records"] for each in data["best"])
    )
    assert all(each["seconds"] == 1e-6 for each in data["best"])
    assert "best rule" in call("stats")[1]
    lowered = json.loads(call("stats", "--model", source, "--dtype", "int8-dynamic", "--json")[1])
    assert lowered["coverage"] < 1.0  # products of bytes are other kernels
    covered = json.loads(call("stats", "--model", source, "--json")[1])
    assert covered["coverage"] == covered["coverage_by_flops"] == 1.0


def test_explain_miss(call: Run, source: Path, tmp_path: Path) -> None:
    found = json.loads(call("explain-miss", source, "--json")[1])
    assert {each["answer"] for each in found} == {"hit"}
    near = json.loads(call("explain-miss", source, "--threads", 1, "--json")[1])
    assert {tuple(each["reasons"]) for each in near} == {("threads: 2 instead of 1",)} or all(
        "threads" in each["reasons"][0] for each in near
    )
    other = model(tmp_path / "other.onnx", columns=56)
    missed = json.loads(call("explain-miss", other, "--json")[1])
    reasons = [reason for each in missed if each["answer"] == "miss" for reason in each["reasons"]]
    assert any("instead of float32[" in reason for reason in reasons)


def test_records_that_nobody_checked_are_told_in_plain_words(
    call: Run, source: Path, tuned: Path, tmp_path: Path
) -> None:
    """By the verb, with each kernel; after a tuning of the kernel they await nothing."""
    assert json.loads(call("stats", "--json")[1])["waiting"] == 0
    path = str(tmp_path / "log.sqlite")
    with access.open_log(str(tuned), readonly=True) as log, access.open_log(path) as other:
        known = list(log.records())
        other.add([replace(known[0], verdict=Verdict.UNCHECKED)], log.described())
    line = "unchecked records awaiting a tuning: 1; none wins before `hybridc tune`"
    assert line in CliRunner().invoke(entry.commands, ["log", "stats", "--log", path]).stdout
    asked = ["log", "explain-miss", str(source), "--json", "--log", path]
    found = json.loads(CliRunner().invoke(entry.commands, asked).stdout)
    reasons = [reason for each in found for reason in each["reasons"]]
    assert "unchecked records awaiting a tuning, which checks their points first: 1" in reasons
    with access.open_log(path) as other:
        other.add([each for each in known if each.workload == known[0].workload])
        assert not unchecked.waiting(other)


def test_exchange_by_the_verb(call: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert call("export", path)[0] == 0
    code, out, _ = call("import", path, "--json")
    assert (code, json.loads(out)[0]["new"]) == (0, 0)
    assert call("export", tmp_path / "log.csv")[0] == 2
    assert call("merge", tmp_path / "none.sqlite")[0] == 2
    assert "removed 0 records" in call("gc")[1]


def test_what_may_win_stays_above_any_limit_and_that_is_said(tuned: Path, tmp_path: Path) -> None:
    copy = tmp_path / "log.sqlite"
    shutil.copy(tuned, copy)
    done = CliRunner().invoke(
        entry.commands, ["log", "gc", "--max-size", "1kB", "--log", str(copy)]
    )
    assert done.exit_code == 0
    assert "still above 1kB: records that may win or were wrong stay" in done.stdout
