"""The benchmarks' own machinery: which tables are made, what they keep, what a row says."""

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from hybridc.compiler.errors import HybridcError, InputError
from hybridc.compiler.measurement.bench import Comparison, Result
from hybridc.compiler.measurement.measure import Samples

FOLDER = Path(__file__).parent.parent / "benchmarks"
HEAD = "| model | hybridc | measured |\n|---|---|---|\n"


@pytest.fixture
def _folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts import each other by their names."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    ours = {path.stem for path in FOLDER.glob("*.py")}
    for name in ours & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.fixture
def run(_folder: None) -> ModuleType:
    return importlib.import_module("run")


@pytest.fixture
def results(_folder: None) -> ModuleType:
    return importlib.import_module("results")


@pytest.fixture
def peers(_folder: None) -> ModuleType:
    pytest.importorskip("transformers")
    return importlib.import_module("peers")


def test_rows_that_were_not_measured_are_kept(results: ModuleType) -> None:
    old = f"## T\n\nstamp\n\n{HEAD}| a | 1 | x |\n| b | 2 | x |\n\n* a: old.\n* b: kept.\n"
    new = f"{HEAD}| a | 3 | y |\n| c | 4 | y |\n\n* a: new."
    wanted = f"{HEAD}| a | 3 | y |\n| b | 2 | x |\n| c | 4 | y |\n\n* b: kept.\n* a: new."
    assert results.merged(old, new) == wanted
    wide = old.replace("|---|---|---|", "| --- | --- | --- |")
    assert wide != old
    assert results.merged(wide, new) == wanted
    assert results.merged("", new) == new
    other = old.replace("| measured |", "| day |")
    assert results.merged(other, new) == new  # columns that mean something else


def test_the_tables_that_are_asked_for(run: ModuleType) -> None:
    def keys(**given: object) -> list[str]:
        lacking = dict.fromkeys(("models", "batch", "precision", "part", "kernels", "rivals"))
        options = {"names": [], **lacking, **given}
        return [section.key for section in run._chosen(argparse.Namespace(**options))]

    every = ["peers-fp32-1", "peers-fp32-8", "peers-bf16-1", "peers-int8-1"]
    alone = [
        "kernels",
        "bandwidth",
        "overheads",
        "log",
        "rebuild",
        "cascade",
        "precision",
        "contracts-speed",
        "contracts-ladder",
        "contracts-rivals",
        "train_cost_model",
        "strategies",
    ]
    tuning = ["tuning-models", "tuning-kernels"]
    assert keys() == [*every, *alone, *tuning, "importing", "disturbance"]
    assert keys(names=["tuning"], part="models") == ["tuning-models"]
    assert keys(names=["contracts"], part="ladder") == ["contracts-ladder"]
    assert keys(names=["peers"], batch=[8]) == ["peers-fp32-8"]
    assert keys(names=["peers"], precision="bf16,int8") == every[2:]
    assert keys(names=["kernels"]) == ["kernels"]
    assert keys(names=["peers"], precision="fp64") == []


def test_sections_are_written_in_their_order_and_those_of_other_machines_stay(
    run: ModuleType, results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "FILE", tmp_path / "RESULTS.md")
    read, order = results.Results.read, run.order()
    read().write("another, AVX-512", "kernels", "## theirs\n", order)
    for key in ("kernels", "peers-int8-1", "misses", "peers-fp32-1"):
        read().write("this, AVX2", key, f"## {key}\n", order)
    read().write("this, AVX2", "kernels", "## new\n", order)
    assert read().of("another, AVX-512") == {"kernels": "## theirs\n"}
    here = read().of("this, AVX2")
    assert list(here) == ["peers-fp32-1", "peers-int8-1", "kernels", "misses"]
    assert here["kernels"] == "## new\n"


def test_the_results_that_are_there_can_be_read(results: ModuleType) -> None:
    for found in results.Results.read().machines.values():
        assert "peers-fp32-1" in found


def test_a_machine_is_told_by_what_decides_its_speed(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = frozenset({"avx2", "avx512f", "avx512vnni", "avx512bf16"})
    monkeypatch.setattr(results.host, "cpu_features", lambda: features)
    monkeypatch.setattr(results.host, "cpu_model", lambda: "A CPU")
    monkeypatch.setattr(results.host, "cores", lambda: 2)
    assert results.machine() == "A CPU, AVX-512 with VNNI and BF16, 2 cores"


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
    text = "\n".join(peers.run(peers.Part("bf16", 1), ["resnet-18"]))
    row = next(line for line in text.splitlines() if line.startswith("| resnet-18"))
    assert row.count("|") == text.splitlines()[0].count("|")
    assert "* resnet-18: not compiled: it holds a poem" in text
    assert "resnet-18, bf16" in capsys.readouterr().err


def test_the_reason_is_what_the_compiler_said(peers: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "poem.onnx").write_text("The fog comes on little cat feet.")
    with pytest.raises(HybridcError, match=r"^not compiled: .*poem\.onnx"):
        peers._compile(tmp_path / "poem.onnx", tmp_path / "poem.hyb", ())


@pytest.fixture
def metaschedule(_folder: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = importlib.import_module("metaschedule")
    monkeypatch.setattr(module, "DATA", tmp_path / "metaschedule.json")
    return module


def searched(module: ModuleType, kernel: str, seed: int, **other: object) -> object:
    facts = {"workload": "0", "trials": 64, "seconds": 1e-3, "measured": 64, "took": 1.0}
    told = {"date": "today", "machine": "this", "tvm": "0.27", "trace": [[], []]}
    return module.Search(**{"kernel": kernel, "seed": seed, **facts, **told, **other})


def test_searches_are_kept_in_one_order(metaschedule: ModuleType) -> None:
    made = partial(searched, metaschedule)
    assert metaschedule.searches() == []
    every = [made("b", 0), made("a", 1), made("a", 0)]
    metaschedule.keep(every)
    assert metaschedule.searches() == [every[2], every[1], every[0]]
    text = metaschedule.DATA.read_text()
    metaschedule.keep(metaschedule.searches())
    assert metaschedule.DATA.read_text() == text


def test_what_another_machine_searched_is_searched_again(
    metaschedule: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is kept, but nothing of ours is timed beside it."""
    here = importlib.import_module("results").machine()
    kernel = metaschedule.KERNELS[16]
    found = SimpleNamespace(kernel=kernel, func=None)
    monkeypatch.setattr(metaschedule.tuning_kernels, "matched", lambda *_: found)
    monkeypatch.setattr(metaschedule.keys, "of_kernel", lambda _: SimpleNamespace(key="0"))
    asked: list[object] = []

    def search(*given: Any) -> object:
        asked.append(given)
        return searched(metaschedule, kernel.name, 0, machine=here)

    monkeypatch.setattr(metaschedule, "search", search)
    metaschedule.keep([searched(metaschedule, kernel.name, 0, machine="elsewhere")])
    call = ["metaschedule.py", "--kernels", kernel.name, "--trials", "64", "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", call)
    for _ in range(2):
        metaschedule.main()
        assert len(asked) == 1
    assert {one.machine for one in metaschedule.searches()} == {here, "elsewhere"}
    assert [one.machine for one in metaschedule.here("0", 64)] == [here]
    assert metaschedule.here("0", 512) == []


def test_the_kernels_of_the_baseline(metaschedule: ModuleType) -> None:
    every = [kernel.name for kernel in metaschedule.KERNELS]
    assert len(set(every)) == 20
    assert [kernel.name for kernel in metaschedule.named(None)] == every
    assert [kernel.name for kernel in metaschedule.named(every[3])] == [every[3]]
    with pytest.raises(InputError, match="no kernel is named softmax 1x1; known: dense"):
        metaschedule.named(f"{every[0]},softmax 1x1")


@pytest.mark.usefixtures("_folder")
def test_a_ratio_is_that_within_a_round() -> None:
    times = importlib.import_module("side_by_side").Times
    flat = [1.0] * 9
    assert times({"a": [0.5] * 9, "b": flat}).ratio("a", "b") == 0.5


def test_a_trace_is_replayed_and_checked_beside_a_point(
    metaschedule: ModuleType, tmp_path: Path
) -> None:
    """What TVM would have found: the second sketch of a small softmax."""
    from hybridc.compiler import target
    from hybridc.compiler.tuning import sketches

    tuning, kernels = map(importlib.import_module, ("tuning", "tuning_kernels"))
    side_by_side = importlib.import_module("side_by_side")
    kernel = tuning._kernel(kernels.softmax(6, 20), target.parse("cpu", 1))
    found = sketches.sketches(kernel.func, kernel.target)
    made = found.schedule({**found.canonical({"threads": 1, "sketch": 0}), "sketch": 2})
    trace = sketches.plain(made.trace.as_json())
    facts = {"trials": 1, "seed": 0, "seconds": 1.0, "measured": 1, "took": 1.0}
    told = {"kernel": kernel.name, "workload": "0", "date": "d", "machine": "m", "tvm": "0"}
    libraries = {name: tmp_path / f"{name}.so" for name in ("ours", "theirs")}
    kernel.compile(kernel.rule.default(kernel.match, kernel.target), libraries["ours"])
    tuning.replayed(kernel, metaschedule.Search(**facts, **told, trace=trace), libraries["theirs"])
    times = side_by_side.measured(kernel, libraries, tmp_path)
    assert all(len(times.seconds[name]) == side_by_side.ROUNDS for name in libraries)
    relu = kernels.Kernel("relu", "elementwise", kernels.op.nn.relu, ((6, 20),))
    tuning._kernel(relu, kernel.target).compile(None, tmp_path / "relu.so")
    with pytest.raises(ValueError, match="softmax 6x20: relu is wrong: parameter 1"):
        side_by_side.measured(kernel, {"relu": tmp_path / "relu.so"}, tmp_path)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_scripts_read_their_arguments(path: Path) -> None:
    """One that does not measures for minutes when it is asked for help.

    What is wrong with them is told in one place, but where another interpreter runs the script.
    """
    text = path.read_text()
    if '__name__ == "__main__"' in text:
        assert re.search(r"^import (argparse|click)|command_line\.(none|model)", text, re.M)
        elsewhere = path.stem in {"nnsmith_models", "rival"}
        assert elsewhere != text.endswith("    command_line.run(main)\n")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("strategies --strategies random+tpx", "'tpx'; did you mean 'tpe'?"),
        ("strategies --data no.npz", "sweep no.npz: No such file or directory"),
        ("strategies --seeds 0", "argument --seeds: one at least, got 0"),
        ("train_cost_model --data no.npz", "sweep no.npz: No such file or directory"),
        ("sweep collect no", "no: nothing in there to collect"),
        ("sweep build {file}/x", "{file}/x: Not a directory"),
        ("sweep build no --share 0 0", "--share 0 0: there is no process 0 of 0"),
        ("conformance_page {file} -o no", "{file}: Extra data"),
        ("metaschedule --kernels conv", "no kernel is named conv; known: dense"),
    ],
)
@pytest.mark.usefixtures("_folder")
def test_what_is_wrong_with_a_call_is_one_line(
    call: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    script, *given = call.format(file=__file__).split()
    main = importlib.import_module(script).main
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{script}.py", *given])
    with pytest.raises(SystemExit) as left:
        importlib.import_module("command_line").run(main)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert left.value.code == 2
    assert line.startswith(f"{script}.py: error: ")
    assert said.format(file=__file__) in line
