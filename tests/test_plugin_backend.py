"""A backend given by `--plugin`, from the compilation to every verb that runs the artifact."""

import json
from pathlib import Path

import library_times
import numpy as np
import pytest

from hybridc.cli import main as entry
from hybridc.compiler import driver, frontend
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import ArtifactError
from hybridc.compiler.model import random_feed
from hybridc.compiler.runtime.session import InferenceSession

PLUGINS = Path(__file__).parent.parent / "examples/plugins"
FILE = PLUGINS / "numpy_products.py"
GIVEN = ("--plugin", str(FILE))

pytestmark = pytest.mark.usefixtures("known_peaks")


@pytest.fixture(scope="module")
def artifact(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose one kernel is numpy's."""
    path = tmp_path_factory.mktemp("joined") / "joined.hyb"
    with pytest.MonkeyPatch.context() as patch:
        library_times.make_up(patch, 0.5)
        options = Options(backends=("tvm", "numpy-products"), plugins=(FILE,))
        driver.compile_source(tiny_model, options).artifact.save(path)
    return path


def test_it_computes_the_kernel(artifact: Path, tiny_model: Path) -> None:
    session = InferenceSession(artifact, plugins=(FILE,))
    assert [each.backend for each in session.artifact.offloads] == ["numpy-products"]
    assert "numpy" in session.artifact.toolchain
    source = frontend.load(tiny_model, shapes={})
    feed = random_feed(source.inputs, 3)
    (got,), (want,) = session.run(None, feed), source.reference(feed)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_without_the_file_loading_is_one_clear_line(artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="no backend is named 'numpy-products'"):
        InferenceSession(artifact)


@pytest.mark.parametrize("verb", ["run", "verify", "report", "bench"])
def test_every_verb_that_runs_it_takes_the_file(
    verb: str,
    artifact: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((24, 48), "float32"))
    options = {
        "run": ["--input", "x=x.npy"],
        "verify": ["--model", str(tiny_model)],
        "report": [],
        "bench": ["--repeat", "1", "--seconds", "0.01"],
    }
    call = [verb, str(artifact), *options[verb]]
    assert entry.run(call) == 2
    assert "numpy-products" in capsys.readouterr().err
    assert entry.run([*call, *GIVEN]) == 0


def test_inspect_needs_no_file(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["inspect", str(artifact), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["backend"] for each in told["offloads"]] == ["numpy-products"]


@pytest.mark.parametrize("file", sorted(PLUGINS.glob("*.py")), ids=lambda path: path.stem)
def test_passes_are_listed_beside_a_plug_in_of_any_kind(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(["passes", "--plugin", str(file), "--json"]) == 0
    names = [each["name"] for each in json.loads(capsys.readouterr().out)["passes"]]
    assert ("merge-clips" in names) == (file.stem == "merge_clips")


def test_a_file_that_holds_no_plug_in_is_one_line(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nothing.py"
    file.write_text("x = 1\n")
    assert entry.run(["compile", str(tiny_model), "--plugin", str(file)]) == 2
    told = capsys.readouterr().err
    assert "nothing.py" in told
    assert told.count("\n") == 1
