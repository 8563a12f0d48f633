"""The benchmark of contracts: ladder, data, verdicts, and whole runs on small models."""

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hybridc.compiler.assurance.clause import Clause
from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.errors import InputError

FOLDER = Path(__file__).parent.parent / "benchmarks"
DIGITS = FOLDER.parent / "examples/digits/digits.onnx"
Load = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import scripts by their names, as they import each other."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    ours = {path.stem for path in FOLDER.glob("*.py")}
    for name in ours & (set(sys.modules) - before):
        del sys.modules[name]


def test_help_keeps_its_lines(script: Load, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("contracts").main(["--help"])
    assert "    python benchmarks/contracts.py unseen --samples 100  " in capsys.readouterr().out


def test_contracts_rise_from_easy_to_hard(script: Load) -> None:
    rungs = list(script("contracts_ladder").ladder(0.010, 20))
    times = [each.max_latency for each in rungs]
    cosines = [each.min_accuracy["cosine"] for each in rungs]
    assert times == sorted(times, reverse=True)
    assert cosines == sorted(cosines)
    assert (times[0], cosines[0]) == (pytest.approx(0.020), pytest.approx(0.9))
    assert (times[-1], 1 - cosines[-1]) == (pytest.approx(0.002), pytest.approx(1e-6))
    assert len(list(script("contracts_ladder").ladder(0.010, 1))) == 1


@pytest.mark.parametrize(
    ("found", "refutes", "holds"),
    [
        (Estimate(0.98, 0.97, 0.985), True, False),
        (Estimate(0.989, 0.98, 0.992), False, False),
        (Estimate(0.991, 0.98, 0.992), False, True),
    ],
)
def test_a_certificate_is_refuted_beyond_doubt_only(
    script: Load, found: Estimate, refutes: bool, holds: bool
) -> None:
    ladder = script("contracts_ladder")
    clause = Clause("accuracy cosine", 0.99, found, True)
    assert (ladder._refutes(clause), ladder._holds(clause)) == (refutes, holds)
    mirrored = Estimate(-found.value, -found.high, -found.low)
    clause = Clause("latency", -0.99, mirrored, False)
    assert (ladder._refutes(clause), ladder._holds(clause)) == (refutes, holds)


def test_data_of_three_kinds_share_no_sample(script: Load) -> None:
    data = script("data")
    source = data.digits()
    kinds = [source.samples(use, 500) for use in range(3)]
    seen = [{each["image"].tobytes() for each in kind} for kind in kinds]
    assert sum(map(len, kinds)) == len(np.load(DIGITS.with_name("digits-test.npz"))["image"])
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert source.file == DIGITS
    assert len(source.samples(1, 7)) == 7


def test_a_name_that_is_none_is_told(script: Load) -> None:
    with pytest.raises(InputError, match=r"no model is named 'digit'; did you mean 'digits'\?"):
        script("contracts").main(["ladder", "--models", "digit"])


RIVAL = """
import json, pathlib, sys
import numpy as np
folder = pathlib.Path(sys.argv[1])
task = json.loads((folder / "task.json").read_text())
if task["loss"] > 1:
    sys.exit("no such luck")
count = len(list(folder.glob("validation-*.npz")))
for right in (1, count):
    found = {f"{i}-0": np.eye(1, 10, i % 10 if i < right else (i + 1) % 10) for i in range(count)}
    np.savez(folder / "outputs.npz", **found)
    print(json.dumps({"outputs": "outputs.npz"}), flush=True)
    figure = float(sys.stdin.readline())
print(f"a figure of {figure}", file=sys.stderr)
print(json.dumps({"made": "made.xml", "seconds": 2.5, "versions": {"nncf": "1"}}), flush=True)
"""


@pytest.mark.parametrize("loss", [0.01, 2.0])
def test_a_rival_in_an_interpreter_of_its_own_asks_for_its_figure(
    script: Load, loss: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rivals, subjects = script("contracts_rivals"), script("subjects")
    (tmp_path / "rival.py").write_text(RIVAL)
    monkeypatch.setattr(rivals, "_SCRIPT", tmp_path / "rival.py")
    feeds = [{"image": np.full((1, 1, 8, 8), i, np.float32)} for i in range(4)]

    def share(session: Any) -> float:
        places = [session.run(["logits"], feed)[0].argmax() for feed in feeds]
        return float(np.mean([place == i for i, place in enumerate(places)]))

    subject = subjects.Subject("digits", DIGITS, feeds, feeds, "share", share, drop=loss)
    if loss > 1:
        with pytest.raises(rivals.RivalError, match="no such luck"):
            rivals.rivalled(subject, "nncf", sys.executable, tmp_path / "made")
        return
    made = rivals.rivalled(subject, "nncf", sys.executable, tmp_path / "made")
    assert (made.figure, made.seconds, made.versions) == (1.0, 2.5, {"nncf": "1"})
    assert made.file == tmp_path / "made/made.xml"
    assert "a figure of 1.0" in (tmp_path / "made/log").read_text()


def test_looser_limits_that_are_slower_and_refuted_ones_are_faults(script: Load) -> None:
    unseen = script("contracts_unseen")

    def certified(limit: float, fresh: float, seconds: float) -> Any:
        return unseen.Certified(limit, None, Estimate(fresh, fresh, fresh), seconds)

    good = [certified(0.9, 0.95, 1.0), certified(0.99, 0.999, 1.02), certified(0.999, 0.9999, 2.0)]
    assert list(unseen.faults(good, 2.0)) == []
    bad = [certified(0.9, 0.95, 1.5), certified(0.99, 0.98, 1.0), certified(0.999, 0.9999, 2.5)]
    told = list(unseen.faults(bad, 2.0))
    assert [each.split("**")[1] for each in told] == [
        "cosine ≥ 0.99 is refuted",
        "cosine ≥ 0.999 is slower than fp32",
        "cosine ≥ 0.9 is slower than ≥ 0.99",
    ]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons of two short rounds."""
    from hybridc.compiler.measurement import bench

    whole = bench.compare

    def compare(found: Any, inputs: Any, _: Any, skipped: Any = None) -> Any:
        return whole(found, inputs, bench.Plan(1, 2, 0.01), skipped)

    monkeypatch.setattr(bench, "compare", compare)


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_the_benchmarks_run_on_digits(script: Load, capsys: pytest.CaptureFixture[str]) -> None:
    contracts = script("contracts")
    contracts.main(["ladder", "--models", "digits", "--contracts", "2", "--samples", "40"])
    (head, _, row, *_) = capsys.readouterr().out.splitlines()
    assert head.startswith("| model | contracts | certified | refused |")
    assert row.startswith("| digits | 2 | 1 | 1 |")
    contracts.main(["speed", "--models", "digits", "--samples", "40"])
    rows = capsys.readouterr().out.splitlines()[2:4]
    assert [row.split("|")[1].strip() for row in rows] == [
        "digits, cosine ≥ 0.999",
        "digits, cosine ≥ 0.99",
    ]
    contracts.main(["rivals", "--models", "digits"])
    out = capsys.readouterr().out
    assert "| digits, hybridc | drop 0.005 |" in out
    assert "nncf" in out


@pytest.mark.slow
def test_the_overhead_of_cascades_on_digits(
    script: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    script("cascade").main(["--model", str(DIGITS), "--rounds", "1"])
    rows = capsys.readouterr().out.splitlines()[2:6]
    assert [row.split("|")[1].strip() for row in rows] == [
        "cascade",
        "fusion",
        "adaptive",
        "hierarchical",
    ]


def test_what_is_given_has_defaults(script: Load) -> None:
    found = script("command_line").model_and_rounds(None, ["--model", "x.onnx", "--rounds", "2"])
    assert found == script("command_line").Compilations(Path("x.onnx"), 2)


def test_parts_of_run_are_told_their_models(script: Load) -> None:
    run = script("run")
    lacking = dict.fromkeys(("batch", "precision", "kernels"))
    asked = argparse.Namespace(
        names=["contracts", "precision"], part="ladder", models="digits", **lacking
    )
    found = [(each.key, each.script, each.arguments) for each in run._chosen(asked)]
    assert found == [
        ("contracts-ladder", "contracts", ("ladder", "--models", "digits")),
        ("precision", "precision", ("--models", "digits")),
    ]
