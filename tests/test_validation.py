"""The user's own function: found by name, run on artifact and reference, its faults told."""

import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from test_driver import classifier

from hybridc.cli import main as entry
from hybridc.compiler import driver
from hybridc.compiler.assurance import validation
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.errors import ContractError, InputError
from hybridc.compiler.orchestration.time_budget import OutOfTimeError

pytestmark = pytest.mark.usefixtures("hasty")


def spread(runner: Any) -> float:
    """What a fixed image's outputs spread over; named outputs are the same as all.

    Arguments go by the names of ONNX Runtime's, whether the artifact runs or the reference, and
    both tell what they take and give.
    """
    (taken,), (given,) = runner.get_inputs(), runner.get_outputs()
    assert (taken.name, taken.shape, given.name) == ("x", [1, 3, 8, 8], "y")
    feed = {"x": np.ones((1, 3, 8, 8), np.float32)}
    (output,) = runner.run(None, feed)
    (named,) = runner.run(output_names=["y"], input_feed=feed)
    np.testing.assert_array_equal(output, named)
    return float(np.ptp(output))


def test_artifact_and_reference_are_asked() -> None:
    limits = Contract(validate=spread, min_accuracy={"spread": 0}, max_drop={"spread": 1e-3})
    certificate = driver.compile(classifier(), contract=limits).certificate
    assert certificate["kept"] is True
    assert certificate["contract"]["validate"] == "spread"
    assert certificate["measured"]["accuracy"]["validate"]["value"] > 0
    assert abs(certificate["measured"]["drop"]["validate"]["value"]) < 1e-3


def test_a_figure_that_is_too_low_breaks_the_contract() -> None:
    limits = Contract(validate=spread, min_accuracy={"validate": 1e9})
    with pytest.raises(ContractError, match="accuracy validate: wanted at least 1e"):
        driver.compile(classifier(), contract=limits)


class Ended(BaseException):
    """What no `except Exception` catches."""


def ending(_: Any) -> float:
    raise Ended("and that was it")


def failing(_: Any) -> float:
    raise KeyError("no such label\nand more")


@pytest.mark.parametrize(
    ("validate", "message"),
    [
        (failing, "the validation function failing raised KeyError: 'no such label"),
        (ending, "the validation function ending raised Ended: and that was it"),
        (lambda _: None, "must return a number, got NoneType"),
        (lambda _: "good", "must return a number, got str"),
        (lambda _: "0.97", "must return a number, got str"),
        (lambda _: [0.97], "must return a number, got list"),
        (lambda _: np.ones(2), "must return a number, got ndarray"),
        (lambda _: sys.exit(3), "raised SystemExit: 3"),
        (lambda _: math.nan, "returned nan"),
        (lambda runner: runner.run(["z"], {"x": np.ones((1, 3, 8, 8), np.float32)}), "'z'"),
    ],
)
def test_faults_of_the_function_are_told(validate: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        driver.compile(
            classifier(), contract=Contract(validate=validate, max_drop={"validate": 0.1})
        )


@pytest.mark.parametrize(
    "value", [np.float32(0.5), np.array(0.5), np.array([0.5]), True, 1, np.int64(2)], ids=repr
)
def test_scalars_of_any_kind_are_numbers(value: Any) -> None:
    found = validation.figure(lambda _: value, None)  # type: ignore[arg-type]
    assert isinstance(found, float)


def stubborn(_: Any) -> float:
    """Goes on whatever happens."""
    while True:
        with contextlib.suppress(Exception):
            time.sleep(1000)


@pytest.mark.parametrize(
    "hanging", [lambda _: time.sleep(1000), stubborn], ids=["waits", "stubborn"]
)
def test_a_budget_ends_a_function_that_hangs(hanging: Callable[[Any], Any]) -> None:
    said = "the budget ended within the validation function"
    with pytest.raises(OutOfTimeError, match=said):
        validation.figure(hanging, None, 0.05)  # type: ignore[arg-type]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_samples_that_are_too_few_are_told_as_such() -> None:
    limits = Contract(min_accuracy={"top1": 0.99})
    with pytest.raises(ContractError, match=r"5 samples are too few to be sure of accuracy top1"):
        driver.compile(classifier(), contract=limits)


def test_a_limit_beyond_the_reference_is_told_as_such() -> None:
    limits = Contract(validate=lambda _: 0.5, min_accuracy={"validate": 0.97})
    with pytest.raises(ContractError, match=r"measured 0.5; the reference's own figure is 0.5"):
        driver.compile(classifier(), contract=limits)


@pytest.fixture
def measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the current directory."""
    (tmp_path / "own_measures.py").write_text(
        "print('imported')\ndef good(session):\n    print('called')\n    return 1\nvalue = 3\n"
    )
    (tmp_path / "own_fault.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_measures", raising=False)
    return "own_measures"


def test_a_function_is_found_in_the_current_directory(measures: str) -> None:
    before = list(sys.path)
    assert validation.load(f"{measures}:good")(None) == 1  # type: ignore[arg-type]
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own_measures", "not of the form package.module:function"),
        (":good", "not of the form"),
        ("no_such_module:good", "cannot import 'no_such_module': ModuleNotFoundError"),
        ("own_fault:good", "cannot import 'own_fault': ZeroDivisionError"),
        ("own_measures:god", "no function 'god'; did you mean 'good'"),
        ("own_measures:value", "no function 'value'"),
    ],
)
@pytest.mark.usefixtures("measures")
def test_what_names_no_function_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        validation.load(text)


@pytest.mark.usefixtures("measures")
def test_what_a_function_prints_is_no_result(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    onnx.save(classifier(), tmp_path / "model.onnx")
    given = ["model.onnx", "--validate", "own_measures:good", "--json"]
    assert entry.run(["compile", *given]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["certificate"]["measured"]["accuracy"]["validate"]["value"] == 1
    assert told.err.split() == ["imported", "called"]
    assert entry.run(["verify", "model.hyb", "--validate", "own_measures:good", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["holds"] is True
    assert "called" in told.err
