"""Kernels by vendor libraries, from the option to the answer; times are made up."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import library_times
import numpy as np
import pytest
from library_times import Turns

from hybridc.cli import main as entry
from hybridc.compiler import driver, frontend
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.backends.onednn import Onednn
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import ArtifactError, InputError
from hybridc.compiler.model import random_feed
from hybridc.compiler.offload import backend as backends
from hybridc.compiler.orchestration import digests
from hybridc.compiler.runtime.session import InferenceSession

pytest.importorskip("torch")
BOTH = ("tvm", "onednn")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Turns]:
    """Makes times up."""
    return partial(library_times.make_up, monkeypatch)


def compiled(model: Path, **options: Any) -> Any:
    return driver.compile_source(model, Options(backends=BOTH, **options))


def right(model: Path, artifact: Artifact, threads: int | None = None) -> None:
    """The artifact answers as the model's reference."""
    source = frontend.load(model, shapes={})
    feed = random_feed(source.inputs, 5)
    got = InferenceSession(artifact, threads).run(None, feed)
    for have, want in zip(got, source.reference(feed), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


@pytest.fixture
def joined(tiny_model: Path, timed: Callable[..., Turns], tmp_path: Path) -> Path:
    """An artifact whose one kernel is oneDNN's."""
    timed(0.5)
    path = tmp_path / "joined.hyb"
    compiled(tiny_model).artifact.save(path)
    return path


def test_a_library_that_is_faster_computes_the_kernel(
    tiny_model: Path, timed: Callable[..., Turns], tmp_path: Path
) -> None:
    timed(0.5)
    outcome = compiled(tiny_model)
    (offload,) = outcome.artifact.offloads
    assert offload.backend == "onednn"
    assert offload.graph.operators == ("matmul", "nn.relu")
    assert [kernel.rule for kernel in outcome.report.kernels] == ["onednn"]
    told = outcome.artifact.manifest()
    assert told["format"] == 4
    assert "torch" in told["toolchain"]
    assert any("onednn 500 ms" in note for note in outcome.report.notes)
    assert outcome.report.agreement
    outcome.artifact.save(tmp_path / "m.hyb")
    for threads in (1, None):
        right(tiny_model, Artifact.load(tmp_path / "m.hyb"), threads)


@pytest.mark.parametrize("time", [0.97, 1.5])
def test_a_library_that_is_not_clearly_faster_computes_nothing(
    tiny_model: Path, timed: Callable[..., Turns], time: float
) -> None:
    timed(time)
    outcome = compiled(tiny_model)
    assert not outcome.artifact.offloads
    assert "torch" not in outcome.artifact.toolchain
    assert outcome.artifact.manifest()["format"] == 1
    assert "offload" not in outcome.artifact.pipeline
    assert "no library is faster at a kernel" in outcome.report.summary()
    assert outcome.report.text().count("no library is faster at a kernel") == 1
    right(tiny_model, outcome.artifact)


def test_what_makes_the_whole_model_slower_does_not_stay(
    tiny_model: Path, timed: Callable[..., Turns]
) -> None:
    timed(0.5, 1.2)
    outcome = compiled(tiny_model)
    assert not outcome.artifact.offloads
    assert any("so all are our own" in note for note in outcome.report.notes)
    plain = driver.compile_source(tiny_model, Options())
    assert outcome.artifact.library == plain.artifact.library
    assert outcome.artifact.pipeline == plain.artifact.pipeline


def test_a_library_that_is_wrong_computes_nothing(
    tiny_model: Path, timed: Callable[..., Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> Any:
        return lambda *tensors: np.from_dlpack(tensors[-1]).fill(7.0)

    monkeypatch.setattr(Onednn, "build", wrong)
    timed(0.1)
    outcome = compiled(tiny_model)
    assert not outcome.artifact.offloads
    assert any("elements differ" in note for note in outcome.report.notes)


def test_a_library_that_fails_computes_nothing(
    tiny_model: Path, timed: Callable[..., Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        def call(*_: Any) -> None:
            raise RuntimeError("no such primitive\nand a page more")

        return call

    monkeypatch.setattr(Onednn, "build", broken)
    timed(0.1)
    outcome = compiled(tiny_model)
    assert not outcome.artifact.offloads
    assert any("no such primitive" in note for note in outcome.report.notes)


def test_a_lock_repeats_the_choice_and_measures_nothing(
    tiny_model: Path, joined: Path, timed: Callable[..., Turns], tmp_path: Path
) -> None:
    turns = timed(9.0, 9.0)
    again = compiled(tiny_model, lock=joined).artifact
    again.save(tmp_path / "again.hyb")
    assert turns.asked == 0
    assert again.library == Artifact.load(joined).library
    assert again.offloads == Artifact.load(joined).offloads


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host where torch is not installed."""
    monkeypatch.setattr(backends, "installed", lambda package: package != "torch")


def test_without_the_library_loading_is_one_clear_line(
    joined: Path, no_torch: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ArtifactError, match="1 of its kernels are computed by onednn") as raised:
        InferenceSession(joined)
    assert "torch is not installed: pip install 'hybridc[torch]'" in str(raised.value)
    given = ["run", str(joined), "--output-dir", str(tmp_path / "out")]
    assert entry.run(given) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_torch")
def test_without_the_library_compiling_with_it_is_refused(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(["compile", str(tiny_model), "--backends", "tvm,onednn"]) == 2
    assert "backend onednn cannot be used here: torch is not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--backends", "onedn"], "did you mean 'onednn'?"),
        (["--backends", "tvm,cudnn"], "cudnn is not for target kind cpu"),
        (["--backends", "onednn", "--frozen"], "a frozen build measures nothing"),
        (["--backends", "onednn", "--verify", "each"], "verify each cannot run vendor libraries"),
    ],
)
def test_bad_calls_are_one_line(
    tiny_model: Path, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(["compile", str(tiny_model), *given]) == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert "\n" not in told


def test_inspect_shows_whose_each_kernel_is(
    joined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(["inspect", str(joined), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["backend"] for each in told["offloads"]] == ["onednn"]
    assert [each["rule"] for each in told["kernels"]] == ["onednn"]
    assert entry.run(["inspect", str(joined)]) == 0
    assert "onednn_matmul_0" in capsys.readouterr().out


def test_a_call_that_fails_is_one_error(joined: Path, tiny_model: Path) -> None:
    session: Any = InferenceSession(joined)
    held: Any = session._offloaded
    feed = random_feed(frontend.load(tiny_model, shapes={}).inputs)
    good = session.run(None, feed)

    def broken(*_: Any) -> None:
        raise RuntimeError("could not create a primitive\nmore")

    (offload,) = session.artifact.offloads
    failing: Any = InferenceSession(joined)
    function: Any = held._guarded(offload, broken)
    failing._last = (__import__("tvm").runtime.convert((function,)), *failing._last[1:])
    failing._offloaded = held
    with pytest.raises(InputError, match="onednn fails in onednn_matmul_0: could not create"):
        failing.run(None, feed)
    np.testing.assert_array_equal(session.run(None, feed)[0], good[0])


def test_artifacts_that_differ_in_libraries_have_other_digests(joined: Path) -> None:
    from dataclasses import replace

    made = Artifact.load(joined)
    (offload,) = made.offloads
    other = replace(made, offloads=(replace(offload, backend="other"),))
    assert digests.of_artifact(made) != digests.of_artifact(other)


def test_an_unknown_backend_in_an_artifact_is_one_line(joined: Path) -> None:
    from dataclasses import replace

    made = Artifact.load(joined)
    (offload,) = made.offloads
    other = replace(made, offloads=(replace(offload, backend="mkl"),))
    with pytest.raises(ArtifactError, match="no backend is named 'mkl'"):
        InferenceSession(other)


def test_whoever_else_uses_torch_keeps_their_threads(joined: Path, tiny_model: Path) -> None:
    import torch

    before = torch.get_num_threads()
    InferenceSession(joined, 1).run(None, random_feed(frontend.load(tiny_model, shapes={}).inputs))
    assert torch.get_num_threads() == before


def test_models_without_libraries_need_no_torch(tiny_model: Path, tmp_path: Path) -> None:
    import subprocess

    path = tmp_path / "plain.hyb"
    driver.compile(tiny_model).save(path)
    code = (
        "import sys, numpy, hybridc\n"
        f"s = hybridc.InferenceSession({str(path)!r}, 1)\n"
        "s.run(None, {'x': numpy.zeros((24, 48), 'float32')})\n"
        "assert not [m for m in sys.modules if m.startswith('hybridc.compiler.backends.')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
