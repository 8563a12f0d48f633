"""Peers side by side: who takes part, in what order, and what the figures mean."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hybridc.cli import main as entry
from hybridc.compiler import driver
from hybridc.compiler.errors import InputError, PluginError
from hybridc.compiler.hardware.peaks import Peaks
from hybridc.compiler.measurement import bench, worker
from hybridc.compiler.measurement.bench import Contender, Plan
from hybridc.compiler.measurement.peer import Peer, peers, renamed
from hybridc.compiler.measurement.profile import profile
from hybridc.compiler.measurement.worker import PeerError, Worker
from hybridc.compiler.model import TensorSpec, random_feed
from hybridc.compiler.runtime.session import InferenceSession

INPUTS = (TensorSpec("x", (4, 12), "float32"),)
QUICK = Plan(threads=1, rounds=2, seconds=0.01)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny.onnx"
    weight = numpy_helper.from_array(np.ones((12, 8), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def artifact(model: Path) -> Path:
    path = model.with_suffix(".hyb")
    driver.compile(model).save(path)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("torch") / "tiny.pt2"
    module = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.ReLU()).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(4, 12),)), path)
    return path


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of which the child processes import third-party peers, by an entry point."""
    package = tmp_path / "stranger-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[hybridc.compiler.peers]\nstranger = stranger:Stranger\n"
    )
    (tmp_path / "stranger.py").write_text(
        "import os, sys\n"
        "from dataclasses import dataclass\n"
        "from hybridc.compiler.measurement.peer import Peer\n"
        "@dataclass(frozen=True)\n"
        "class Stranger(Peer):\n"
        '    """Does what its option says."""\n'
        "    suffixes = ('.onnx',)\n"
        "    packages = ('stranger',)\n"
        "    does: str = 'log'\n"
        "    def prepare(self, path, feed, threads):\n"
        "        print('noise on stdout', flush=True)\n"
        "        log = path.with_name('order.txt')\n"
        "        def call():\n"
        "            if self.does == 'die':\n"
        "                print('its last words', file=sys.stderr)\n"
        "                os._exit(7)\n"
        "            with log.open('a') as stream:\n"
        "                stream.write(f'{self.does}{feed[\"x\"][0, 0]:.3f}{threads} ')\n"
        "        return call\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("stranger", None)


def test_every_peer_says_what_it_takes() -> None:
    for name, kind in peers().all():
        assert kind.suffixes, name
        assert kind.packages, name
        assert (kind.__doc__ or "").strip(), name


def test_each_peer_gets_the_first_file_that_it_takes(tmp_path: Path) -> None:
    files = [tmp_path / "a.hyb", tmp_path / "b.onnx", tmp_path / "c.onnx"]
    taking_part, skipped = bench.contenders(["hybridc", "ort"], files)
    assert taking_part == [Contender("hybridc", files[0]), Contender("ort", files[1])]
    assert not skipped


def test_who_cannot_take_part_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, skipped = bench.contenders(["ort"], [tmp_path / "c.pt2"])
    assert skipped == {"ort": "it needs a .onnx file; give one with --model"}
    monkeypatch.setattr(peers().load("ort"), "packages", ("no-such-package",))
    _, skipped = bench.contenders(["ort"], [tmp_path / "c.onnx"])
    assert skipped["ort"].startswith("no-such-package not installed: pip install")


def test_an_unknown_peer() -> None:
    with pytest.raises(PluginError, match="did you mean 'openvino'"):
        bench.contenders(["openvin"], [])


def test_peers_take_turns_on_the_same_inputs_and_threads(stranger: Path, model: Path) -> None:
    copy = stranger / "tiny.onnx"
    copy.write_bytes(model.read_bytes())
    both = [Contender("stranger{does=a}", copy), Contender("stranger{does=b}", copy)]
    result = bench.compare(both, INPUTS, Plan(threads=3, rounds=3, seconds=0.0, seed=5))
    words = (stranger / "order.txt").read_text().split()
    turns = [word[0] for last, word in zip(["", *words], words, strict=False) if word != last]
    assert turns == ["a", "b"] * 3
    value = random_feed(INPUTS, 5)["x"][0, 0]
    assert {word[1:] for word in words} == {f"{value:.3f}3"}
    assert [entry.peer for entry in result.results] == ["stranger{does=a}", "stranger{does=b}"]
    assert result.results[0].versions == {"stranger": "1.0"}


def test_a_peer_that_dies_is_reported_with_its_last_words(stranger: Path, model: Path) -> None:
    with Worker("stranger{does=die}", model) as process:
        process.prepare(INPUTS, 1, 0)
        with pytest.raises(PeerError, match="its process ended with 7: its last words"):
            process.sample(0.0, 0.0)


@pytest.mark.usefixtures("stranger")
def test_a_peer_that_hangs_is_given_up(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TIMEOUT", 0.0)
    with (
        Worker("stranger", model) as process,
        pytest.raises(PeerError, match="did not answer in time"),
    ):
        process.prepare(INPUTS, 1, 0)


def test_a_model_that_no_peer_can_read(tmp_path: Path) -> None:
    (tmp_path / "poem.onnx").write_text("The fog comes on little cat feet.")
    with pytest.raises(InputError, match=r"no peer can run this model: ort: .*poem\.onnx"):
        bench.compare([Contender("ort", tmp_path / "poem.onnx")], INPUTS, QUICK)


def test_one_that_fails_does_not_stop_the_others(
    model: Path, artifact: Path, tmp_path: Path
) -> None:
    (tmp_path / "poem.onnx").write_text("The fog comes on little cat feet.")
    taking_part = [Contender("hybridc", artifact), Contender("ort", tmp_path / "poem.onnx")]
    result = bench.compare(taking_part, INPUTS, QUICK, {"eager": "because"})
    assert [entry.peer for entry in result.results] == ["hybridc"]
    assert result.skipped["eager"] == "because"
    assert "poem.onnx" in result.skipped["ort"]


@pytest.mark.parametrize("name", ["ort", "openvino", "hybridc", "eager"])
def test_each_peer_computes_the_model(
    name: str, model: Path, artifact: Path, request: pytest.FixtureRequest
) -> None:
    kind = peers().load(name)
    if kind.missing():
        pytest.skip(f"{kind.missing()} not installed")
    path = {".onnx": model, ".hyb": artifact}.get(kind.suffixes[0])
    path = path or request.getfixturevalue("program")
    feed = random_feed(INPUTS)
    (y,) = _outputs(kind().prepare(path, feed, 1)())
    wanted = (
        _torch_answer(path, feed["x"])
        if path.suffix == ".pt2"
        else feed["x"].sum(1, keepdims=True).repeat(8, 1).clip(0)
    )
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)


def _outputs(result: Any) -> list[Any]:
    """The arrays of what a peer gave: a list, a mapping or one tensor."""
    found = (
        list(result.values()) if hasattr(result, "values") and not _is_tensor(result) else result
    )
    return [np.asarray(found)] if _is_tensor(found) else [np.asarray(array) for array in found]


def _is_tensor(result: Any) -> bool:
    return hasattr(result, "is_sparse")


def _torch_answer(path: Path, x: Any) -> Any:
    import torch

    with torch.no_grad():
        return torch.export.load(path).module()(torch.from_numpy(x)).numpy()


def test_the_profile_covers_the_kernels_of_the_artifact(artifact: Path) -> None:
    session = InferenceSession(artifact)
    found = profile(session, random_feed(INPUTS), Peaks(1e9, 1e9))
    assert {kernel.kernel for kernel in found.kernels} == set(session.artifact.lock)
    rules = {name: entry["rule"] for name, entry in session.artifact.lock.items()}
    assert {kernel.kernel: kernel.rule for kernel in found.kernels} == rules
    assert all(kernel.calls >= 1 and kernel.seconds > 0 for kernel in found.kernels)


@pytest.mark.usefixtures("known_peaks")
def test_the_verb_compiles_compares_and_profiles(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRIDC_CACHE", str(tmp_path))
    options = ["--against", "ort,eager", "--repeat", "1", "--seconds", "0.01", "--kernels"]
    assert entry.run(["bench", str(model), *options, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [entry["peer"] for entry in data["results"]] == ["hybridc", "ort"]
    assert set(data["skipped"]) == {"eager"}
    assert data["profile"]["kernels"]
    assert data["profile"]["peak_flops"] == 1e11


def test_the_verb_wants_a_model_for_the_peers_of_an_artifact(
    artifact: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--against", "ort", "--repeat", "1", "--seconds", "0.01"]
    assert entry.run(["bench", str(artifact), *quick]) == 0
    assert "ort was left out: it needs a .onnx file" in capsys.readouterr().out
    assert entry.run(["bench", str(artifact), *quick, "--model", str(model)]) == 0
    assert "ort was left out" not in capsys.readouterr().out
    assert entry.run(["bench", str(artifact), *quick, "--model", "none.onnx"]) == 2
    assert "none.onnx: no such file" in capsys.readouterr().err


def test_peer_is_abstract() -> None:
    with pytest.raises(TypeError):
        Peer()  # type: ignore[abstract]


def test_a_feed_takes_the_names_of_the_model_file() -> None:
    feed = {"x": np.zeros(1), "mask": np.ones(2)}
    assert renamed(feed, ["mask", "x"]) is feed
    assert list(renamed(feed, ["input_0", "input_1"])) == ["input_0", "input_1"]
    assert renamed(feed, ["a", "b"])["b"] is feed["mask"]
    with pytest.raises(InputError, match="the model's inputs are a, not x, mask"):
        renamed(feed, ["a"])
