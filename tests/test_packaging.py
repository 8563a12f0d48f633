"""What users install: the wheel and the sdist hold everything, and work where nothing else is."""

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("autotune", "cli", "compiler", "passes", "schedules")
PACKAGED = {
    f"hybridc/{path.relative_to(ROOT)}"
    for folder in FOLDERS
    for pattern in ("*.py", "*.cuh", "cost_model*.*")
    for path in (ROOT / folder).rglob(pattern)
    if path.suffix != ".pyc"
} | {"hybridc/__init__.py", "hybridc/onnx_backend.py", "hybridc/py.typed"}

# y = relu(x @ w) of a 2 by 3 input, compiled and run; torch must neither be there nor be missed.
TRIAL = """
import importlib.util
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import hybridc

w = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Relu", ["xw"], ["y"])],
    "tiny",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
    [numpy_helper.from_array(w, "w")],
)
opset = helper.make_opsetid("", 20)
model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
hybridc.compile(model).save("tiny.hyb")
x = np.array([[1, 2, 3], [-1, 0, 1]], np.float32)
y, = hybridc.InferenceSession("tiny.hyb").run(None, {"x": x})
np.testing.assert_allclose(y, np.maximum(x @ w, 0), rtol=1e-6)
assert importlib.util.find_spec("torch") is None
onnx.save(model, "tiny.onnx")
"""


def call(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def build(tree: Path, kind: str, into: Path) -> Path:
    call(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "-o", into, ".", cwd=tree)
    (made,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module", params=["links", "no links"])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged; some checkouts and archives have no links in `hybridc/`."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in (*FOLDERS, "hybridc"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    if request.param == "no links":
        for folder in FOLDERS:
            (copy / "hybridc" / folder).unlink()
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tree, "wheel", tmp_path_factory.mktemp("wheel"))


def modules(wheel: Path) -> set[str]:
    names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_on_disk_and_no_other(wheel: Path) -> None:
    assert modules(wheel) == PACKAGED
    assert any(name.endswith("licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_the_sdist_builds_the_same_wheel(tree: Path, tmp_path: Path) -> None:
    sdist = build(tree, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert modules(build(source, "wheel", tmp_path / "wheel")) == PACKAGED


@pytest.mark.slow
@pytest.mark.parametrize("tree", ["links"], indirect=True)
def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    folder = tmp_path / "venv/bin"
    pip = (folder / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
    call(*pip, wheel, cwd=tmp_path)
    assert call(folder / "hybridc", "--version", cwd=tmp_path).startswith("hybridc ")
    call(folder / "python", "-c", TRIAL, cwd=tmp_path)
    said = call(folder / "hybridc", "compile", "tiny.onnx", "-o", "again.hyb", cwd=tmp_path)
    assert "again.hyb" in said
