"""Runs that are interrupted go on: results lie in a file as soon as they are there."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hybridc.cli.conformance import command
from hybridc.compiler.conformance.record import Record
from hybridc.compiler.conformance.suite import Result, Verdict
from hybridc.compiler.errors import InputError

GOOD = Result("a", "g", Verdict.PASS, seconds=1.5)
HELPED = Result("b", "g", Verdict.FALLBACK, fixed=("axes",))
BAD = Result("c", "g", Verdict.WRONG, "far off")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    record = Record(path, "suite")
    for result in (GOOD, HELPED, BAD):
        record.add(result)
    return path


def test_results_are_kept(path: Path) -> None:
    wanted = {"a": GOOD, "b": HELPED, "c": BAD}
    assert Record(path, "suite").results == wanted
    assert Record(path, "suite").results == wanted  # opening it changes nothing


def test_what_did_not_pass_is_forgotten_where_it_shall_run_again(path: Path) -> None:
    again = Record(path, "suite", again=True)
    assert set(again.results) == {"a", "b"}
    again.add(Result("c", "g", Verdict.PASS))
    assert Record(path, "suite").results["c"].verdict == Verdict.PASS


def test_a_torn_line_is_lost_alone(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    record = Record(path, "suite")
    assert set(record.results) == {"a", "b"}
    record.add(BAD)
    assert path.read_bytes() == content
    path.write_bytes(b'{"suite": "su')
    assert Record(path, "suite").results == {}


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    record = Record(None, "suite")
    record.add(GOOD)
    assert record.results == {"a": GOOD}
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused_and_left_alone(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(InputError, match="results of suite, not of other"):
        Record(path, "other")
    assert path.read_bytes() == before
    head, *rest = before.decode().splitlines()
    old = json.loads(head)
    old["versions"]["onnx"] = "0.1"
    path.write_text("\n".join([json.dumps(old), *rest, ""]))
    with pytest.raises(InputError, match=r"results by onnx 0\.1, not "):
        Record(path, "suite")
    for content in ("hello\n", "[1]\n", f"{head}\n{{}}\n"):
        path.write_text(content)
        with pytest.raises(InputError, match="not results of a conformance run"):
            Record(path, "suite")
        assert path.read_text() == content
    with pytest.raises(InputError, match="cannot be written: No such file"):
        Record(path.parent / "none" / "x", "suite")


def test_again_needs_a_file() -> None:
    result = CliRunner().invoke(command, ["--again"])
    assert "the file of --resume" in str(result.exception)
