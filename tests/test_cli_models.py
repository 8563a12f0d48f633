"""The verbs that take models and artifacts, on small real ones."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hybridc.cli import main as entry
from hybridc.compiler.artifact import Artifact
from hybridc.compiler.model import Array, TensorSpec

WEIGHT = np.random.default_rng(2).standard_normal((12, 8)).astype(np.float32)
OLD = b"what was there before"


def graph(nodes: list[onnx.NodeProto], batch: int | str = 4, **values: Array) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nasa", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def dense(batch: int | str = 4) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return graph(nodes, batch, w=WEIGHT)


def answer(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(x @ WEIGHT, 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a model, one of open shape, and files that are no models."""
    monkeypatch.chdir(tmp_path)
    onnx.save(dense(), "tiny.onnx")
    onnx.save(dense("batch"), "open.onnx")
    odd = [helper.make_node("FlyToTheMoon", ["x"], ["y"], name="apollo", domain="nasa")]
    onnx.save(graph(odd), "odd.onnx")
    whole = Path("tiny.onnx").read_bytes()
    Path("cut.onnx").write_bytes(whole[: len(whole) // 2])
    Path("empty.onnx").write_bytes(b"")
    Path("poem.onnx").write_text("The fog comes on little cat feet.\n" * 20)
    Path("poem.txt").write_text("The fog comes on little cat feet.\n")
    Path("poem.npz").write_text("The fog comes on little cat feet.\n")
    Path("folder.onnx").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of `dense`, compiled by the command line."""
    path = tmp_path_factory.mktemp("compiled")
    onnx.save(dense(), path / "tiny.onnx")
    assert entry.run(["compile", str(path / "tiny.onnx"), "-o", str(path / "tiny.hyb")]) == 0
    return path / "tiny.hyb"


def assert_error(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    out, err = capsys.readouterr()
    assert not out
    (line,) = err.splitlines()
    assert line.startswith("hybridc: error: ")
    for part in parts:
        assert part in line


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
        (["open.onnx"], "x"),
        (["open.onnx", "--shape", "x=2xbig"], "NAME=1x3x224x224"),
        (["open.onnx", "--shape", "z=2x12"], "z"),
        (["tiny.onnx", "--pipeline", "default,fuze"], "did you mean 'fuse'?"),
        (["tiny.onnx", "--pipeline", "fuse{depht=1}"], "depht"),
        (["tiny.onnx", "--pipeline", "fuse{"], "fuse{"),
        (["tiny.onnx", "--target", "avx513"], "did you mean 'avx512'?"),
        (["tiny.onnx", "--verify", "sometimes"], "'each', 'end', 'off'"),
        (["tiny.onnx", "--threads", "0"], "--threads"),
        (["tiny.onnx", "--max-latency", "soon"], "soon"),
        (["tiny.onnx", "--min-accuracy", "cosin=0.9"], "did you mean 'cosine'?"),
        (["tiny.onnx", "--plugin", "missing.py"], "missing.py: no such file"),
        (["tiny.onnx", "--calibration", "missing.npz"], "missing.npz"),
        (["tiny.onnx", "--calibration", "poem.npz"], "poem.npz is no archive"),
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

    monkeypatch.setattr("hybridc.compiler.files.os.fsync", full)
    assert entry.run(["compile", "tiny.onnx", "-o", "out.hyb"]) == 2
    assert_error(capsys, "out.hyb", "No space left on device")
    assert Path("out.hyb").read_bytes() == OLD
    assert sorted(folder.iterdir()) == before


@pytest.mark.usefixtures("folder")
def test_a_folder_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["compile", "tiny.onnx", "-o", "no/such/out.hyb"]) == 2
    assert_error(capsys, "no/such/out.hyb", "No such file or directory")


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
def test_a_contract_that_holds(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("data.npz", x=np.ones((3, 4, 12), np.float32))
    limits = ["--max-latency", "1h", "--min-accuracy", "cosine=0.999", "--calibration", "data.npz"]
    assert entry.run(["compile", "tiny.onnx", *limits, "--json"]) == 0
    certificate = json.loads(capsys.readouterr().out)["certificate"]
    assert certificate["kept"] is True
    # The third is for ranges, should int8 be needed.
    assert certificate["data"] == "calibration data, split, 2 samples"


def test_run_writes_what_numpy_computes(
    compiled: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(3).standard_normal((4, 12)).astype(np.float32)
    np.save("x.npy", x)
    call = ["run", str(compiled), "--input", "x=x.npy", "--output-dir", "results/today"]
    assert entry.run(call) == 0
    assert capsys.readouterr().out == "results/today/y.npy\n"
    y = np.load(folder / "results" / "today" / "y.npy")
    np.testing.assert_allclose(y, answer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "array", "parts"),
    [
        ("z=x.npy", np.zeros((4, 12), np.float32), ("missing inputs: x float32[4,12]", "'z'")),
        ("x=x.npy", np.zeros((4, 12)), ("given: x float64[4,12]",)),
        ("x=x.npy", np.zeros((4, 13), np.float32), ("given: x float32[4,13]",)),
        ("x=x.npy", np.array([{}], object), ("x.npy holds no plain array",)),
        ("x", np.zeros(1), ("'x' is not of the form NAME=FILE.npy",)),
        ("x=none.npy", np.zeros(1), ("No such file or directory: none.npy",)),
        ("x=poem.txt", np.zeros(1), ("poem.txt holds no plain array",)),
        ("x=empty.onnx", np.zeros(1), ("empty.onnx holds no plain array",)),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_wrong_input_of_run(
    given: str,
    array: Array,
    parts: tuple[str, ...],
    compiled: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save("x.npy", array, allow_pickle=True)
    assert entry.run(["run", str(compiled), "--input", given, "--output-dir", "out"]) == 2
    assert_error(capsys, *parts)
    assert not Path("out").exists()


@pytest.mark.parametrize("place", [0, 0.3, 0.6, 0.9])
@pytest.mark.usefixtures("folder")
def test_an_altered_artifact_is_refused(
    place: float, compiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(compiled.read_bytes())
    content[int(place * len(content))] ^= 0x10
    Path("bad.hyb").write_bytes(content)
    np.save("x.npy", np.zeros((4, 12), np.float32))
    for call in (["run", "bad.hyb", "--input", "x=x.npy"], ["inspect", "bad.hyb"]):
        assert entry.run(call) == 2
        assert_error(capsys, "bad.hyb")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("verb", ["run", "inspect", "bench"])
def test_a_file_that_is_no_artifact(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("poem.hyb").write_text(Path("poem.txt").read_text())
    assert entry.run([verb, "poem.hyb"]) == 2
    assert_error(capsys, "poem.hyb")
    assert entry.run([verb, "none.hyb"]) == 2
    assert_error(capsys, "none.hyb")


@pytest.mark.usefixtures("folder")
def test_an_artifact_for_another_cpu_is_refused(
    compiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    artifact = Artifact.load(compiled)
    target = {**artifact.target, "features": ["avx2", "avx1024"]}
    dataclasses.replace(artifact, target=target).save("future.hyb")
    np.save("x.npy", np.zeros((4, 12), np.float32))
    assert entry.run(["run", "future.hyb", "--input", "x=x.npy"]) == 2
    assert_error(capsys, "avx1024")
    assert entry.run(["inspect", "future.hyb", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing_on_this_host"] == ["avx1024"]


def test_outputs_get_safe_file_names(tmp_path: Path) -> None:
    from hybridc.cli.run import _paths  # pyright: ignore[reportPrivateUsage]

    names = ["../../etc/passwd", "a/b:0", "a_b_0", "..", "", "y"]
    paths = _paths(names, tmp_path)
    assert all(path.parent == tmp_path for path in paths)
    assert len(set(paths)) == len(names)
    assert [path.name for path in paths[:2]] == ["_.._etc_passwd.npy", "a_b_0.npy"]


def test_inspect_shows_an_artifact(compiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["inspect", str(compiled), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["inputs"] == [{"name": "x", "shape": [4, 12], "dtype": "float32"}]
    assert data["parameters"] >= WEIGHT.size
    assert data["kernels"]
    assert entry.run(["inspect", str(compiled)]) == 0
    assert data["kernels"][0]["kernel"] in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_inspect_shows_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["inspect", "tiny.onnx", "--json"]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert data["operators"] == {"MatMul": 1, "Relu": 1}
    assert data["parameters"]["count"] == WEIGHT.size
    assert data["unsupported"] == {}
    assert entry.run(["inspect", "odd.onnx"]) == 0
    assert "FlyToTheMoon" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_inspect_takes_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["inspect", "open.onnx", "--shape", "x=2x12", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["inputs"][0]["shape"] == [2, 12]
    assert data["flops"] >= 2 * 2 * WEIGHT.size
