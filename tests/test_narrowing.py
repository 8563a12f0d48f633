"""Narrowing: on errors made up, and of a trained network on a clock that is told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler import driver, target
from hybridc.compiler.assurance import timing
from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import PassError
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.quantization import narrowing, sensitivity
from hybridc.compiler.quantization.narrowing import Broken
from hybridc.compiler.quantization.operator_times import OperatorTimes
from hybridc.compiler.quantization.sensitivity import Lowered, Operator
from hybridc.compiler.runtime.session import InferenceSession

pytestmark = pytest.mark.usefixtures("hasty")

DIGITS = Path(__file__).parent.parent / "examples/digits"


@dataclass(frozen=True)
class Candidate:
    """What is measured of an assignment."""

    measured: Measured
    sensitive: Lowered | None


def _no_switches() -> Any:
    raise PassError("made up")


def lowered(errors: Sequence[float]) -> Lowered:
    operators = tuple(
        Operator(f"conv2d-{i}", f"conv2d-{i} 8x8x1x1", 10**6, 8, 64, 1000, error, True)
        for i, error in enumerate(errors)
    )
    return Lowered(operators, _no_switches, [])


class Compiler:
    """Gives the accuracy that the errors of what is lowered leave, or fails."""

    def __init__(self, errors: Sequence[float], factor: float = 1.0, fails: bool = False) -> None:
        self.errors, self.factor, self.fails = errors, factor, fails
        self.tried: list[tuple[str, ...]] = []

    def __call__(self, options: Options) -> Candidate:
        self.tried.append(options.precise)
        if self.fails and options.precise:
            raise PassError("no such luck")
        noise = sum(e for i, e in enumerate(self.errors) if f"conv2d-{i}" not in options.precise)
        cosine = Estimate.exactly(1 - self.factor * noise / 2)
        return Candidate(Measured(accuracy={"cosine": cosine}), lowered(self.errors))


def narrowed(compiler: Compiler, limit: float) -> narrowing.Narrowed[Candidate] | None:
    options = Options(dtype="int8", contract=Contract("1ms", min_accuracy={"cosine": limit}))
    broken = compiler(options)
    return narrowing.narrow(options, broken, compiler)


def perceptron() -> onnx.ModelProto:
    """Three matrix products, with rectifiers between."""
    draw, nodes, weights = np.random.default_rng(0), list[Any](), list[Any]()
    read = "x"
    for index, (rows, columns) in enumerate([(64, 128), (128, 128), (128, 10)]):
        weight = (draw.standard_normal((rows, columns)) / rows**0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [read, f"w{index}"], [f"m{index}"]))
        read = f"r{index}"
        nodes.append(helper.make_node("Relu", [f"m{index}"], [read]))
    nodes[-1] = helper.make_node("Identity", ["m2"], ["r2"])
    kind = TensorProto.FLOAT
    x = helper.make_tensor_value_info("x", kind, [4, 64])
    y = helper.make_tensor_value_info("r2", kind, [4, 10])
    graph = helper.make_graph(nodes, "perceptron", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


ERRORS = [1e-5, 4e-2, 2e-5, 5e-3, 1e-5, 3e-5, 2e-3, 1e-5]


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_the_worst_operators_stay_as_they_were(factor: float) -> None:
    compiler = Compiler(ERRORS, factor)
    found = narrowed(compiler, 0.999)
    assert found is not None
    assert found.best.measured.accuracy["cosine"].value >= 0.999
    assert len(compiler.tried) <= 1 + narrowing.STEPS
    assert found.options.precise[:2] == ("conv2d-1", "conv2d-3")
    assert len(found.options.precise) <= 4
    assert "conv2d-1 8x8x1x1 (4.0e-02)" in found.told
    assert len(set(compiler.tried)) == len(compiler.tried)


def test_a_limit_that_nothing_keeps_narrows_nothing() -> None:
    compiler = Compiler([1e-2] * 4)
    assert narrowed(compiler, 0.99999) is None
    assert len(compiler.tried) <= 1 + narrowing.STEPS
    assert narrowed(Compiler(ERRORS, fails=True), 0.999) is None


def test_what_tells_no_operators_is_not_narrowed() -> None:
    options = Options(dtype="bf16")
    assert narrowing.narrow(options, Broken(Measured(), None), Compiler([])) is None


def test_int8_keeps_a_network_that_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trained digits: every product in bytes, but those that the limit does not allow."""
    outcome = _digits(monkeypatch, {"cosine": 0.999})
    assert outcome.artifact.certificate["precision"] == "int8"
    assert outcome.artifact.certificate["kept"] is True
    verdicts = {each.stage: each.verdict for each in outcome.report.decisions}
    assert verdicts["int8"] == "kept"
    (operators,) = [each.operators for each in outcome.report.decisions if each.stage == "int8"]
    assert operators is not None
    assert operators["lowered"] == 4


def test_what_was_timed_goes_before_estimates() -> None:
    """The first is no faster in bytes as measured, so that its small error is not worth it."""
    made = [replace(each, macs=10**6 + i) for i, each in enumerate(lowered(ERRORS).operators)]
    wide = {2 * each.macs: 1e-3 for each in made[:3]}
    narrow = {2 * made[0].macs: 2e-3, 2 * made[1].macs: 5e-4}
    times = OperatorTimes(made, target.parse("avx2", 1), wide, narrow)
    assert times.of(made[0]) == (1e-3, 2e-3)
    assert times.of(made[1]) == (1e-3, 5e-4)
    # The others are estimated, on the scale of these two.
    guesses = [sum(sensitivity.seconds(each, times.target)) for each in made]
    scale = (3e-3 + 1.5e-3) / sum(guesses[:2])
    assert sum(times.of(made[2])) == pytest.approx(scale * guesses[2])
    compiler = Compiler(ERRORS)
    options = Options(dtype="int8", contract=Contract("1ms", min_accuracy={"cosine": 0.9}))
    broken = Broken(compiler(options).measured, Lowered(tuple(made), _no_switches, []))
    found = narrowing.narrow(options, broken, compiler, (wide, narrow))
    assert found is not None
    assert "conv2d-0" in found.options.precise


def test_effects_are_bounds_where_few_samples_have_most_of_the_noise() -> None:
    energies = [1.0] * 50
    even = sensitivity.beyond_doubt([0.01] * 50, energies)
    gathered = sensitivity.beyond_doubt([0.0] * 48 + [0.25] * 2, energies)
    assert even == pytest.approx(0.01)
    # The mean is the same; its standard error is 0.05 / sqrt(50).
    assert gathered == pytest.approx(0.01 + 2 * np.std([0.0] * 48 + [0.25] * 2, ddof=1) / 50**0.5)
    assert sensitivity.beyond_doubt([0.5], [2.0]) == 0.25
    assert sensitivity.beyond_doubt([0.0, 0.0], [0.0, 0.0]) == 0.0


@pytest.mark.slow
def test_int8_is_narrowed_where_the_limit_is_tight(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = _digits(monkeypatch, {"cosine": 0.999989})
    (decision,) = [each for each in outcome.report.decisions if each.stage == "int8"]
    assert decision.verdict == "kept"
    assert "most error for their time" in decision.reason
    assert outcome.artifact.certificate["kept"] is True
    assert "quantize{keep=" in outcome.artifact.pipeline


def _digits(monkeypatch: pytest.MonkeyPatch, limits: dict[str, float]) -> Any:
    """The digits within 5 ms, where calls in bytes are said to take half of the time."""

    def measured(session: InferenceSession, *_: object) -> Samples:
        half = "quantize" in session.artifact.pipeline
        return Samples((0.004 if half else 0.008,) * 20)

    monkeypatch.setattr(timing, "timed", measured)
    options = Options(
        target="avx2",
        threads=1,
        contract=Contract("5ms", min_accuracy=limits),
        calibration=DIGITS / "digits-test.npz",
    )
    return driver.compile_source(DIGITS / "digits.onnx", options)


def test_what_few_samples_do_not_show_counts_by_its_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = lowered([1e-4, 1e-4, 8e-4, 1e-5])
    monkeypatch.setattr(sensitivity, "_effects", lambda _: {0: 1e-5, 1: 3e-5, 2: 1e-5})
    found = [each.effect for each in sensitivity.measured(given)]
    # On average a twentieth of the own errors arrives: 5e-5 of 1e-3.
    assert found == pytest.approx([1e-5, 3e-5, 4e-5, 5e-7])


def test_effects_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given, asked = lowered([1e-4, 8e-4]), list[Lowered]()

    def effects(found: Lowered) -> dict[int, float]:
        asked.append(found)
        return {0: 1e-5, 1: 3e-5}

    monkeypatch.setattr(sensitivity, "_effects", effects)
    first = sensitivity.measured(given)
    assert sensitivity.measured(replace(given, operators=given.operators)) == first
    assert len(asked) == 1


def test_what_saturates_on_other_data_stays_as_it_was() -> None:
    """One channel is a thousand times as large as the rest, and larger still in validation."""
    draw = np.random.default_rng(1)
    images = draw.standard_normal((32, 4, 64)).astype(np.float32)
    images[:, :, 5] *= 1000
    limit = Contract(min_accuracy={"cosine": 0.999})
    options = Options(dtype="int8", contract=limit, calibration={"x": images})
    found = driver.compile_source(perceptron(), options)
    assert not found.broken
    assert "2 of 3 products in int8" in found.artifact.report["notes"][-1]
    assert "as they were: matmul-0" in found.artifact.report["notes"][-1]


@pytest.mark.parametrize(
    ("errors", "limit", "most"),
    [
        ([0.9, 1e-4, 1e-4, 1e-6], 1 - 1e-5, 3),  # shares of what the others lose are tiny
        ([400.0, 1e-3, 1e-7], 0.999, 1),  # a cosine of 0 does not tell how much noise there is
        ([0.9, 3e-9], 1 - 1e-8, 1),
        ([0.3, 0.3, 0.3, 0.3, 1e-8], 1 - 1e-7, 4),
    ],
)
def test_where_few_make_nearly_all_of_the_error_the_others_are_lowered(
    errors: list[float], limit: float, most: int
) -> None:
    """An outlier in a channel of one layer, which makes its error thousands of times larger."""

    class Saturating(Compiler):
        def __call__(self, options: Options) -> Candidate:
            found = super().__call__(options)
            cosine = max(0.0, found.measured.accuracy["cosine"].value)
            return replace(found, measured=Measured(accuracy={"cosine": Estimate.exactly(cosine)}))

    compiler = Saturating(errors)
    found = narrowed(compiler, limit)
    assert found is not None
    assert len(found.options.precise) == most
    assert len(compiler.tried) <= 1 + narrowing.STEPS


def test_more_of_the_most_sensitive_stay_where_errors_add_up_otherwise() -> None:
    """Together two make no error, so that no share of it tells that the third is to blame."""

    class Hidden(Compiler):
        def __call__(self, options: Options) -> Candidate:
            self.tried.append(options.precise)
            wrong = "conv2d-2" not in options.precise
            cosine = Estimate.exactly(0.9 if wrong else 1.0)
            return Candidate(Measured(accuracy={"cosine": cosine}), lowered(self.errors))

    compiler = Hidden([1e-3, 2e-3, 4e-3])
    found = narrowed(compiler, 0.999)
    assert found is not None
    assert "conv2d-2" in found.options.precise
    assert len(set(compiler.tried)) == len(compiler.tried)
