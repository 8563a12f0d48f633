"""An artifact measured again: what holds, what does not, and what cannot be checked."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import FLOAT, build, node, noise
from test_driver import classifier, image
from test_validation import spread

from hybridc.cli import main as entry
from hybridc.compiler import driver
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.assurance.recheck import recheck
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import ArtifactError, InputError, WrongAnswerError
from hybridc.compiler.text.units import format_size

pytestmark = pytest.mark.usefixtures("hasty")

LIMITS = Contract(
    max_latency="p90<=1h",
    max_memory="1GB",
    max_size="1GB",
    min_accuracy={"cosine": 0.999, "validate": 0},
    max_drop={"validate": 1},
    validate=spread,
)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return driver.compile(classifier(), contract=LIMITS)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(classifier(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", x=image(9, 30))
    return tmp_path / "data.npz"


def test_all_is_checked_where_all_is_given(artifact: Artifact, model: Path, data: Path) -> None:
    found = recheck(artifact, model, data, spread)
    assert found.holds
    assert found.unchecked == ()
    assert [clause.name for clause in found.clauses] == [
        "p90 latency",
        "peak memory",
        "artifact size",
        "accuracy cosine",
        "accuracy validate",
        "drop of validate",
    ]
    assert found.examined.certificate["data"] == "data given, 30 samples"


def test_the_size_is_that_of_the_file(tmp_path: Path) -> None:
    options = Options(contract=Contract(max_size="1GB"), monitor=True)
    found = driver.compile_source(classifier(), options)
    found.artifact.save(tmp_path / "model.hyb")
    size = (tmp_path / "model.hyb").stat().st_size
    assert found.measured.size == size
    assert found.artifact.certificate["measured"]["size"] == size
    tight = Options(contract=Contract(max_size=size - 64))
    again = driver.compile_source(classifier(), tight)
    again.artifact.save(tmp_path / "model.hyb")
    assert bool(again.broken) == ((tmp_path / "model.hyb").stat().st_size > size - 64)


def test_what_is_lacking_is_told(artifact: Artifact) -> None:
    found = recheck(artifact)
    assert found.holds
    assert [clause.name for clause in found.clauses] == [
        "p90 latency",
        "peak memory",
        "artifact size",
    ]
    assert found.unchecked == (
        "the limits on spread need --validate",
        "accuracy cosine needs --model",
    )
    assert recheck(artifact, validate=spread).unchecked[0] == "the drop of spread needs --model"


def test_random_inputs_are_those_of_the_certificate(artifact: Artifact) -> None:
    found = recheck(artifact).examined.certificate
    assert found["data_blake3"] == artifact.certificate["data_blake3"]


def test_as_many_samples_are_drawn_as_when_it_was_compiled(tmp_path: Path) -> None:
    """An output of one element does not tell how large it is, unless there are several of it."""
    path = tmp_path / "one.onnx"
    product = build(
        [node("MatMul", "x w", "y")],
        [("x", FLOAT, [1, 64])],
        [("y", FLOAT, None)],
        {"w": noise(64, 1)},
    )
    onnx.save(product, path)
    made = driver.compile(path, dtype="bf16")
    found = recheck(made, path).examined.certificate
    assert found["data_blake3"] == made.certificate["data_blake3"]
    assert found["data"].endswith(", 8 samples")


def test_tolerances_are_those_of_the_artifact(model: Path) -> None:
    """By its own tolerance an artifact holds that is beyond the usual one, and the reverse."""
    wide = driver.compile(classifier(), rtol=0.0, atol=10.0)
    assert wide.certificate["tolerances"] == {"rtol": 0.0, "atol": 10.0}
    weights = {name: array * np.float32(1.01) for name, array in wide.weights.items()}
    found = recheck(replace(wide, weights=weights), model)
    assert [each.atol for each in found.examined.agreement] == [10.0]
    usual = driver.compile(classifier())
    assert "tolerances" not in usual.certificate
    with pytest.raises(WrongAnswerError, match=r"atol 0\.0001"):
        recheck(replace(usual, weights=weights), model)
    narrow = replace(usual, certificate={**usual.certificate, "tolerances": {"rtol": 0, "atol": 0}})
    with pytest.raises(WrongAnswerError, match="rtol 0, atol 0"):
        recheck(narrow, model)


@pytest.mark.parametrize("told", [3, {"rtol": "x"}, {"atol": -1.0}, {"rtol": float("inf")}])
def test_tolerances_of_a_stranger_are_checked(artifact: Artifact, told: Any) -> None:
    strange = replace(artifact, certificate={**artifact.certificate, "tolerances": told})
    with pytest.raises(ArtifactError, match=r"has an invalid .tol"):
        recheck(strange)


@pytest.mark.parametrize("report", [{}, {"memory": 3}, {"memory": {"peak": "no"}}])
def test_memory_that_no_report_tells_is_not_said_to_hold(artifact: Artifact, report: Any) -> None:
    with pytest.raises(ArtifactError, match="has no peak memory"):
        recheck(replace(artifact, report=report))


def test_a_limit_that_says_nothing_of_the_data_is_refused(artifact: Artifact, model: Path) -> None:
    """Weights of a stranger's model that make NaN of everything, and zeros."""
    for weight, said in ((np.nan, "is NaN in"), (0.0, "cosine says nothing of this model")):
        made = classifier()
        (dense,) = [each for each in made.graph.initializer if each.name == "dense"]
        dense.CopyFrom(onnx.numpy_helper.from_array(np.full((16, 10), weight, "f"), "dense"))
        onnx.save(made, model)
        with pytest.raises(InputError, match=said):
            recheck(artifact, model, validate=spread)


@pytest.mark.parametrize("seed", [-3, "x", 1.5, None])
def test_a_seed_of_a_stranger_is_checked(artifact: Artifact, seed: Any) -> None:
    strange = replace(artifact, certificate={**artifact.certificate, "seed": seed})
    with pytest.raises(ArtifactError, match="has an invalid seed"):
        recheck(strange)


def test_another_model_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    other = classifier(2)
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(InputError, match="what the artifact was compiled from"):
        recheck(artifact, tmp_path / "other.onnx")


def test_what_the_certificate_says_was_measured_stands_beside_what_is(
    artifact: Artifact, model: Path
) -> None:
    """Hashes show that a file is whole, not that its figures are true."""
    said = artifact.certificate["measured"]
    forged = {**said, "accuracy": {"cosine": {"value": 0.5, "low": 0.5, "high": 0.5}}}
    found = recheck(
        replace(artifact, certificate={**artifact.certificate, "measured": forged}), model
    )
    (then,) = [each for each in found.before if each.name == "accuracy cosine"]
    (now,) = [each for each in found.clauses if each.name == "accuracy cosine"]
    assert (then.value, now.value) == ("0.5", "1")
    endless = {"value": 10**400, "low": 1, "high": 1}
    shapeless = ({"latency": 3}, {"accuracy": {"cosine": {}}}, {"memory": "x"})
    for told in (3, *shapeless, {"memory": "1e999"}, {"latency": endless}):
        strange = replace(artifact, certificate={**artifact.certificate, "measured": told})
        assert recheck(strange).before == ()


def test_a_figure_that_is_infinite_is_told_too(tmp_path: Path) -> None:
    """A model that only moves numbers makes no noise."""
    flat = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "flat",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])],
        )
    )
    onnx.save(flat, tmp_path / "flat.onnx")
    made = driver.compile(flat, contract=Contract(min_accuracy={"snr": 30}))
    told = json.loads(json.dumps(made.certificate, allow_nan=False))
    found = recheck(replace(made, certificate=told), tmp_path / "flat.onnx")
    assert [each.value for each in (*found.before, *found.clauses)] == ["inf", "inf"]


@pytest.mark.parametrize(
    "contract",
    [3, {"max_latency": "soon"}, {"min_accuracy": [1]}, {"max_latency": True}, {"max_fun": 1}],
)
def test_a_contract_of_a_stranger_is_checked(artifact: Artifact, contract: Any) -> None:
    strange = replace(artifact, certificate={"contract": contract})
    with pytest.raises(ArtifactError, match="has an invalid contract"):
        recheck(strange)


def test_the_verb_tells_what_holds(
    artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.hyb"
    artifact.save(path)
    assert entry.run(["verify", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["holds"] is True
    certificate = {**artifact.certificate, "contract": {"max_size": 1}}
    replace(artifact, certificate=certificate).save(path)
    assert entry.run(["verify", str(path)]) == 3
    told = capsys.readouterr()
    assert "does not hold" in told.out
    size = artifact.certificate["measured"]["size"]
    assert f"at most 1 B  {format_size(size)}  " in told.out  # then, and now
    assert "artifact size: wanted at most 1 B" in told.err


def test_what_cannot_run_here_is_not_said_to_hold(model: Path) -> None:
    made = driver.compile(model, verify="off")
    foreign = replace(made, target={**made.target, "features": ["amx-int8-of-tomorrow"]})
    with pytest.raises(ArtifactError, match="lacks: amx-int8-of-tomorrow"):
        recheck(foreign)


def test_another_machine_is_told_beside_times(artifact: Artifact) -> None:
    """A limit on time is promised for the machine that it was measured on."""
    assert not [each for each in recheck(artifact).machine if "certified on" in each]
    moved = replace(
        artifact,
        certificate={**artifact.certificate, "machine": "Abacus 9000"},
        target={**artifact.target, "threads": 512},
    )
    first, second, *_ = recheck(moved).machine
    assert first.endswith("and the artifact was certified on Abacus 9000")
    assert second.endswith(" of the 512 threads that it was compiled for")


def test_nothing_to_measure_is_said(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver.compile(model, verify="off").save(tmp_path / "x.hyb")
    assert entry.run(["verify", str(tmp_path / "x.hyb")]) == 0
    assert "nothing was measured: there is no limit to check" in capsys.readouterr().out
