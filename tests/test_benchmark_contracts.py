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
    with pytest.raises(SystemExit, match="no model is named digit; known: digits, bert-tiny"):
        script("contracts").main(["ladder", "--models", "digit"])


def test_openvino_answers_as_a_session(script: Load) -> None:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(DIGITS), "CPU")
    session = script("contracts_rivals").Compiled(compiled)
    feed = {"image": np.zeros((1, 1, 8, 8), np.float32)}
    (output,) = session.run(None, feed)
    assert output.shape == (1, 10)
    np.testing.assert_array_equal(session.run(["logits"], feed)[0], output)


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
    found = script("given").model_and_rounds(None, ["--model", "x.onnx", "--rounds", "2"])
    assert found == script("given").Given(Path("x.onnx"), 2)


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
