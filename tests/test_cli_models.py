"""`hybridc compile` on small real models: what it writes, what it says, what it leaves alone."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from cli_models import assert_error, write

from hybridc.cli import main as entry
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.model import TensorSpec

pytestmark = pytest.mark.usefixtures("hasty")

OLD = b"what was there before"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with models and files that are none."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_compile_writes_an_artifact_and_says_what_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert entry.run(["compile", "tiny.onnx", "--report", "report.txt"]) == 0
    out, err = capsys.readouterr()
    assert "output y: max-abs" in out
    assert "tiny.hyb (" in out
    assert not err
    assert Artifact.load("tiny.hyb").inputs == (TensorSpec("x", (4, 12), "float32"),)
    report = Path("report.txt").read_text()
    for title in ("model", "result", "stages", "kernels"):
        assert f"{title}\n---" in report


@pytest.mark.usefixtures("folder")
def test_compile_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["compile", "open.onnx", "--shape", "x=2x12", "-o", "out.hyb", "--json", "-v"]
    assert entry.run(call) == 0
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert data["artifact"] == "out.hyb"
    assert data["bytes"] == Path("out.hyb").stat().st_size
    assert data["agreement"][0]["ok"] is True
    assert "pass fuse" in err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["poem.onnx"], "poem.onnx"),
        (["cut.onnx"], "cut.onnx"),
        (["empty.onnx"], "empty"),
        (["folder.onnx"], "folder.onnx"),
        (["missing.onnx"], "missing.onnx: no such file"),
        (["poem.txt"], ".onnx or .pt2"),
        (["odd.onnx"], "FlyToTheMoon"),
        (["open.onnx", "--shape", "x=2xbig"], "axis 1 of input 'x' is 12, not open"),
        (["open.onnx", "--shape", "x=2x-1"], "NAME=1x3x224x224"),
        (["open.onnx", "--shape", "x=?%0x12"], "what follows % is at least 1"),
        (["open.onnx", "--shape", "x=5..3x12"], "the upper bound is below the lower"),
        (["open.onnx", "--shape", "batch=1..4@5"], "not within the bounds"),
        (["open.onnx", "--shape", "bach=3"], "did you mean 'batch'?"),
        (["open.onnx", "--shape", "z=2x12"], "z"),
        (["tiny.onnx", "--pipeline", "default,fuze"], "did you mean 'fuse'?"),
        (["tiny.onnx", "--pipeline", "fuse{depht=1}"], "depht"),
        (["tiny.onnx", "--pipeline", "fuse{"], "fuse{"),
        (["tiny.onnx", "--pipeline", "default,,fuse"], "a pass is missing beside a comma"),
        (["tiny.onnx", "--pipeline", " "], "the usual one is 'default'"),
        (["tiny.onnx", "--target", "avx513"], "did you mean 'avx512'?"),
        (["tiny.onnx", "--verify", "sometimes"], "'each', 'end', 'off'"),
        (["tiny.onnx", "--threads", "0"], "--threads"),
        (["tiny.onnx", "--max-latency", "soon"], "soon"),
        (["tiny.onnx", "--min-accuracy", "cosin=0.9"], "did you mean 'cosine'?"),
        (["tiny.onnx", "--plugin", "missing.py"], "missing.py: no such file"),
        (["tiny.onnx", "--calibration", "missing.npz"], "missing.npz"),
        (["tiny.onnx", "--calibration", "poem.npz"], "poem.npz is not an archive"),
        (["tiny.onnx", "--calibrate", "x.npz"], "--calibration"),
    ],
)
def test_a_wrong_call_of_compile_leaves_what_was_there(
    arguments: list[str], part: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out.hyb").write_bytes(OLD)
    before = sorted(folder.iterdir())
    assert entry.run(["compile", *arguments, "-o", "out.hyb"]) == 2
    assert_error(capsys, part)
    assert Path("out.hyb").read_bytes() == OLD
    assert sorted(folder.iterdir()) == before


def test_a_full_disk_leaves_what_was_there(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("out.hyb").write_bytes(OLD)
    before = sorted(folder.iterdir())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("hybridc.compiler.filesystem.files.os.fsync", full)
    assert entry.run(["compile", "tiny.onnx", "-o", "out.hyb"]) == 2
    assert_error(capsys, "out.hyb", "No space left on device")
    assert entry.run(["compile", "tiny.onnx", "-o", "out.hyb", "--trace", "t.json"]) == 2
    assert_error(capsys, "t.json", "No space left on device")
    assert Path("out.hyb").read_bytes() == OLD
    assert sorted(folder.iterdir()) == before


@pytest.mark.usefixtures("folder")
def test_a_folder_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["compile", "tiny.onnx", "-o", "no/such/out.hyb"]) == 2
    assert_error(capsys, "no/such/out.hyb", "there is no folder no/such")


@pytest.mark.usefixtures("folder")
def test_a_contract_that_does_not_hold_leaves_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["compile", "tiny.onnx", "-o", "out.hyb", "--max-latency", "1ns"]
    assert entry.run(call) == 3
    assert_error(capsys, "latency")
    assert not Path("out.hyb").exists()
    assert entry.run([*call, "--keep-best"]) == 3
    assert "out.hyb is kept" in capsys.readouterr().err
    assert Artifact.load("out.hyb").certificate["kept"] is False


@pytest.mark.usefixtures("folder")
def test_a_refusal_is_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["compile", "tiny.onnx", "-o", "out.hyb", "--max-latency", "1ns", "--json"]
    assert entry.run(call) == 3
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["artifact"], told["bytes"]) == (None, None)
    assert told["broken"][0].startswith("latency: wanted at most 1 ns, measured ")
    assert "; ".join(told["broken"]) in err
    assert told["certificate"]["kept"] is False
    assert told["kernels"]
    assert not Path("out.hyb").exists()
    assert entry.run([*call, "--keep-best"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["artifact"] == "out.hyb"
    assert told["broken"]


@pytest.mark.usefixtures("folder")
def test_a_contract_that_holds(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("data.npz", x=np.ones((3, 4, 12), np.float32))
    limits = ["--max-latency", "1h", "--min-accuracy", "cosine=0.999", "--calibration", "data.npz"]
    assert entry.run(["compile", "tiny.onnx", *limits, "--json"]) == 0
    certificate = json.loads(capsys.readouterr().out)["certificate"]
    assert certificate["kept"] is True
    # No stage asked for ranges, which would have taken some of them.
    assert certificate["data"] == "calibration data, 3 samples"
