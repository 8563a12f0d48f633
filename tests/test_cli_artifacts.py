"""The verbs that take artifacts, on a small real one."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_models import WEIGHT, answer, assert_error, dense, write

from hybridc.cli import main as entry
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.model import Array


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with models and files that are none."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of `dense`, compiled by the command line."""
    path = tmp_path_factory.mktemp("compiled")
    onnx.save(dense(), path / "tiny.onnx")
    assert entry.run(["compile", str(path / "tiny.onnx"), "-o", str(path / "tiny.hyb")]) == 0
    return path / "tiny.hyb"


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
        ("x=x.npy", np.array([{}], object), ("x.npy is not a plain array",)),
        ("x", np.zeros(1), ("'x' is not of the form NAME=FILE.npy",)),
        ("x=none.npy", np.zeros(1), ("none.npy: no such file",)),
        ("x=poem.txt", np.zeros(1), ("poem.txt is not a plain array (.npy): it is damaged, or",)),
        ("x=torn.zip", np.zeros(1), ("torn.zip is not a plain array",)),
        ("x=empty.onnx", np.zeros(1), ("empty.onnx is not a plain array",)),
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
    Path("torn.zip").write_bytes(b"PK\x03\x04 torn")
    assert entry.run(["run", str(compiled), "--input", given, "--output-dir", "out"]) == 2
    assert_error(capsys, *parts)
    assert not Path("out").exists()


def test_numbers_in_another_byte_order_are_the_same_numbers(compiled: Path, folder: Path) -> None:
    x = np.random.default_rng(3).standard_normal((4, 12)).astype(np.float32)
    np.save("x.npy", x.astype(">f4"))
    assert entry.run(["run", str(compiled), "--input", "x=x.npy", "--output-dir", "out"]) == 0
    y = np.load(folder / "out" / "y.npy")
    np.testing.assert_allclose(y, answer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--input", "x=x.npy", "--input", "x=x.npy"], "--input x is given twice"),
        (["--input", "x=x.npy", "--output-dir", "x.npy"], "--output-dir x.npy: not a folder"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_wrong_call_of_run(
    options: list[str], said: str, compiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("x.npy", np.zeros((4, 12), np.float32))
    assert entry.run(["run", str(compiled), *options]) == 2
    assert_error(capsys, said)


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

    long = "y" * 300
    names = ["../../etc/passwd", "a/b:0", "a_b_0", "..", "", "y", long, f"{long}2"]
    paths = _paths(names, tmp_path)
    assert all(path.parent == tmp_path for path in paths)
    assert len(set(paths)) == len(names)
    assert all(len(path.name) < 220 for path in paths)
    assert [path.name for path in paths[:2]] == ["_.._etc_passwd.npy", "a_b_0.npy"]


def test_inspect_shows_an_artifact(compiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["inspect", str(compiled), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["inputs"] == [{"name": "x", "shape": [4, 12], "dtype": "float32"}]
    assert data["weights"] >= WEIGHT.size
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
def test_inspect_shows_an_analysis_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["inspect", "tiny.onnx"]) == 0
    told = capsys.readouterr().out
    assert "4x12" in told
    assert re.search(r"matmul +1 +\d+\.\d%", told)
    assert re.search(r"roofline: [0-9.]+ (ns|us)\n", told)
    assert re.search(r"\n  bytes: [0-9.]+ (B|kB)\n", told)
    assert "log_speedup" not in told


@pytest.mark.usefixtures("folder")
def test_inspect_takes_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["inspect", "open.onnx", "--shape", "x=2x12", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["inputs"][0]["shape"] == [2, 12]
    assert data["flops"] >= 2 * 2 * WEIGHT.size
