"""Stages whose times leave doubt are compared with what stands call by call, in turns."""

import itertools
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import FAST, Candidate, all_better, exactly, verdicts

from hybridc.compiler import driver
from hybridc.compiler.assurance import timing
from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.measurement import measure
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.orchestration import cascade, stages
from hybridc.compiler.orchestration.candidates import Means
from hybridc.compiler.orchestration.judging import in_doubt, noise
from hybridc.compiler.runtime.session import InferenceSession

pytestmark = pytest.mark.usefixtures("hasty")

DIGITS = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"
# A CPU that multiplies in bf16.
WIDE = '{"kind": "llvm", "mcpu": "cooperlake"}'


@pytest.fixture
def _bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LOSSY", ("bf16",))


def times(milliseconds: float, **others: object) -> Measured:
    """So long a call, beyond doubt; `others` are fields of `Measured`."""
    cosine = {"cosine": exactly(0.9995)}
    return Measured(**{"latency": exactly(milliseconds / 1e3), "accuracy": cosine, **others})  # type: ignore[arg-type]


def test_calls_take_turns() -> None:
    order: list[str] = []

    def call(name: str) -> None:
        order.append(name)
        time.sleep(2e-3)

    one, other = measure.in_turns(
        [lambda: call("one"), lambda: call("other")], seconds=0.05, turn=5e-3
    )
    assert min(len(one), len(other)) >= measure.MIN_SAMPLES
    assert min(one + other) >= 2e-3
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes >= 4, "each of them is called anew after the other"


def test_what_is_doubtful() -> None:
    loose, slow, fast = Contract(), times(8), times(4)
    blurred = times(4, latency=Estimate(4e-3, 3e-3, 9e-3))
    assert not in_doubt(loose, fast, slow)
    assert in_doubt(loose, slow, fast), "it seems slower"
    assert in_doubt(loose, blurred, slow), "the intervals overlap"
    assert in_doubt(loose, times(4, disturbed="other programs"), slow)
    assert not in_doubt(loose, slow, None)
    rough = times(8, accuracy={"cosine": exactly(0.9)})
    assert not in_doubt(FAST, rough, fast), "it is out whatever its time is"
    assert not in_doubt(Contract(max_memory="1MB"), replace(slow, memory=1), fast)


def test_noise_is_what_turns_tell_apart_at_most() -> None:
    assert noise(None) == noise(times(4)) == 0.01
    assert noise(times(4, latency=Estimate(4e-3, 3.9e-3, 4.1e-3))) == pytest.approx(0.025)
    assert noise(times(4, latency=Estimate(4e-3, 1e-3, 9e-3))) == 0.05
    assert noise(times(4, latency=Estimate(4e-3, 1e-3, math.inf))) == 0.01


@pytest.mark.usefixtures("_bf16")
def test_turns_overrule_what_single_measurements_say() -> None:
    asked: list[tuple[float, float]] = []
    maker = all_better()
    maker.found["bf16"] = maker.found["tuned+bf16"] = Candidate(9, 0.9995)

    def in_turns(one: Candidate, other: Candidate) -> tuple[Measured, Measured]:
        asked.append((one.milliseconds, other.milliseconds))
        return times(7), times(4)

    def retimed(_: Candidate) -> Candidate:
        return Candidate(4, 0.9995)

    means = Means(maker.attempt, in_turns=in_turns, retimed=retimed)
    found = cascade.run(Options(contract=FAST, target=WIDE), means)
    assert asked[0] == (8, 9)
    assert verdicts(found)["bf16"] == "kept"
    assert found.best.milliseconds == 4
    told = {each.stage: each for each in found.decisions}["bf16"]
    assert told.measured is not None
    assert told.measured["latency"]["value"] == pytest.approx(4e-3), "not what overruled"
    assert told.log_speedup == pytest.approx(math.log(7 / 4))
    precision = {each.component: each for each in found.hybrid.components}["precision"]
    assert precision.log_speedup == pytest.approx(math.log(7 / 4))


@pytest.mark.usefixtures("_bf16")
def test_what_is_slower_in_turns_too_is_rolled_back() -> None:
    maker = all_better()
    maker.found["bf16"] = Candidate(9, 0.9995)
    means = Means(maker.attempt, in_turns=lambda _, __: (times(8), times(10)))
    found = cascade.run(Options(contract=FAST, target=WIDE), means)
    assert verdicts(found)["bf16"] == "rolled back"
    told = "no nearer to the limits: latency 10 ms of 5 ms, 8 ms before"
    assert found.decisions[1].reason == told


def test_a_disturbed_measurement_does_not_cost_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second stage seems to be slow, since something else ran; its certificate is made anew."""
    measured: list[float] = []
    really = timing.timed

    def timed(*given: object) -> Samples:
        measured.append(0.0)
        found = really(*given)  # type: ignore[arg-type]
        return Samples((1.0,) * 20) if len(measured) == 2 else found

    def in_turns(calls: list[object], *, seconds: float) -> list[tuple[float, ...]]:
        assert seconds > 0
        return [(2e-3,) * 9, (1e-3,) * 9][: len(calls)]

    monkeypatch.setattr(timing, "timed", timed)
    monkeypatch.setattr(measure, "in_turns", in_turns)
    contract = Contract("1ns", min_accuracy={"cosine": 0.9})
    options = Options(contract=contract, threads=2)
    outcome = driver.compile_source(DIGITS, options)
    assert outcome.report.decisions[0].verdict == "kept"
    kept = [each for each in outcome.report.decisions if each.verdict == "kept"]
    assert len(kept) >= 2, "the stage that seemed slow stays"
    told = outcome.artifact.certificate["latency"]
    assert told["median_ms"] < 1000
    InferenceSession(outcome.artifact, 2)
