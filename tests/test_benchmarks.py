"""The benchmarks' own machinery: which tables are made, what they keep, what a row says."""

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hybridc.compiler.bench import Comparison, Result
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.measure import Samples

FOLDER = Path(__file__).parent.parent / "benchmarks"
HEAD = "| model | hybridc | measured |\n|---|---|---|\n"


@pytest.fixture
def _folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts import each other by their names."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in {"run", "peers", "models"} & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.fixture
def run(_folder: None) -> ModuleType:
    return importlib.import_module("run")


@pytest.fixture
def peers(_folder: None) -> ModuleType:
    pytest.importorskip("transformers")
    return importlib.import_module("peers")


def test_rows_that_were_not_measured_are_kept(run: ModuleType) -> None:
    old = f"## T\n\nstamp\n\n{HEAD}| a | 1 | x |\n| b | 2 | x |\n\n* a: old.\n* b: kept.\n"
    new = f"{HEAD}| a | 3 | y |\n| c | 4 | y |\n\n* a: new."
    wanted = f"{HEAD}| a | 3 | y |\n| b | 2 | x |\n| c | 4 | y |\n\n* b: kept.\n* a: new."
    assert run.merged(old, new) == wanted
    assert run.merged("", new) == new
    other = old.replace("| measured |", "| day |")
    assert run.merged(other, new) == new  # columns that mean something else


def test_the_tables_that_are_asked_for(run: ModuleType) -> None:
    def keys(**given: object) -> list[str]:
        options = {"names": [], "models": None, "batch": None, "precision": None, **given}
        return [section.key for section in run._chosen(argparse.Namespace(**options))]

    every = ["peers-fp32-1", "peers-fp32-8", "peers-bf16-1", "peers-int8-1"]
    alone = ["kernels", "bandwidth", "overheads", "log", "train_cost_model", "strategies"]
    assert keys() == [*every, *alone]
    assert keys(names=["peers"], batch=[8]) == ["peers-fp32-8"]
    assert keys(names=["peers"], precision="bf16,int8") == every[2:]
    assert keys(names=["kernels"]) == ["kernels"]
    assert keys(names=["peers"], precision="fp64") == []


def test_sections_are_written_in_their_order(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path / "RESULTS.md")
    for key in ("kernels", "peers-int8-1", "peers-fp32-1"):
        run._write(key, f"## {key}\n")
    run._write("kernels", "## new\n")
    assert list(run.sections()) == ["peers-fp32-1", "peers-int8-1", "kernels"]
    assert run.sections()["kernels"] == "## new\n"


def test_the_results_that_are_there_can_be_read(run: ModuleType) -> None:
    assert {"peers-fp32-1", "kernels", "overheads"} <= set(run.sections())


def result(peer: str, seconds: float) -> Result:
    return Result(peer, {peer: "1"}, Samples((seconds, seconds)), (seconds, seconds))


def test_a_row_tells_the_ratio_to_the_faster_rival(peers: ModuleType) -> None:
    found = (result("hybridc", 0.010), result("ort", 0.020), result("openvino", 0.011))
    part = peers.Part("fp32", 8)
    cells = peers._cells(part, "m", Comparison(found, {}, 2, 0.0), 0.007)
    assert cells[0] == "**10.00**"
    assert cells[2:4] == ["20.00 (0.50)", "11.00 (0.91)"]
    assert cells[-3:] == ["0.91", "≤ 1.00", "70%"]
    assert (
        "missed"
        in peers._cells(peers.Part("fp32", 1), "resnet-50", Comparison(found, {}, 2, 0.0), None)[-3]
    )


def test_peers_are_held_to_the_precision(peers: ModuleType) -> None:
    for name, terms in peers.PRECISIONS.items():
        assert set(terms.rivals) <= set(terms.peers) <= set(peers.TITLES), name
        if name != "int8":
            assert ("bf16" in "".join(terms.peers)) == (name == "bf16")


def test_a_model_that_cannot_be_compiled_is_a_row_with_the_reason(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise HybridcError("not compiled: it holds a poem")

    monkeypatch.setattr(peers, "_measured", refuse)
    text = peers.run(peers.Part("bf16", 1), ["resnet-18"])
    row = next(line for line in text.splitlines() if line.startswith("| resnet-18"))
    assert row.count("|") == text.splitlines()[0].count("|")
    assert "* resnet-18: not compiled: it holds a poem" in text
    assert "resnet-18, bf16" in capsys.readouterr().err


def test_the_reason_is_what_the_compiler_said(peers: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "poem.onnx").write_text("The fog comes on little cat feet.")
    with pytest.raises(HybridcError, match=r"^not compiled: .*poem\.onnx"):
        peers._compile(tmp_path / "poem.onnx", tmp_path / "poem.hyb", ())
