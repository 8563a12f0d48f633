"""Results of stages that an interrupted compilation left."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import FLOAT, build, node
from test_driver import classifier

from hybridc.compiler import driver, frontend, settings
from hybridc.compiler.assurance import timing
from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.assurance.terms import Trial
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.model import Model
from hybridc.compiler.orchestration import course, resume, stages
from hybridc.compiler.orchestration.attempt import Outcome
from hybridc.compiler.orchestration.expected_gains import history
from hybridc.compiler.orchestration.expected_gains.history import Past
from hybridc.compiler.orchestration.resume import Kept
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.orchestration.workshop import Workshop
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.tuning.options import Tuning

pytestmark = pytest.mark.usefixtures("bf16_alone", "hasty")
DIGITS = Path(__file__).parent.parent / "examples/digits"
LIMITS = Contract("5ms", min_accuracy={"cosine": 0.99})


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return driver.compile_source(classifier(), Options())


@pytest.fixture
def kept(outcome: Outcome, tmp_path: Path) -> Kept:
    model = Model("m", None, outcome.report.inputs, outcome.report.outputs, lambda _: [])
    found = Kept(tmp_path / "stages" / "one", Trial(model, [], []), now=lambda: 1000.0)
    found.save(Options(), outcome)
    return found


def test_a_result_comes_back_as_it_was(kept: Kept, outcome: Outcome) -> None:
    again = kept.load(Options())
    assert again is not None
    assert again.measured == outcome.measured
    assert again.artifact.certificate == outcome.artifact.certificate
    assert again.report.kernels == outcome.report.kernels
    undecided = replace(outcome.report, model="m", decisions=(), hybrid=None, stages=())
    assert again.report.to_json() == undecided.to_json()
    assert again.report.idle == outcome.report.idle
    x = np.ones((1, 3, 8, 8), np.float32)
    (wanted,) = InferenceSession(outcome.artifact).run(None, {"x": x})
    (found,) = InferenceSession(again.artifact).run(None, {"x": x})
    np.testing.assert_array_equal(found, wanted)
    assert "0 s ago" in kept.notes[0]


def test_infinite_figures_come_back(kept: Kept, outcome: Outcome) -> None:
    perfect = Measured(Estimate(1e-3, 5e-4, math.inf), accuracy={"snr": Estimate.exactly(math.inf)})
    kept.save(Options(), replace(outcome, measured=perfect))
    again = kept.load(Options())
    assert again is not None, kept.notes
    assert again.measured == perfect


def test_other_options_have_other_results(kept: Kept) -> None:
    for other in (Options(dtype="bf16"), Options(seed=3), Options(tuning=Tuning(5))):
        assert kept.load(other) is None
    same = Options(steering=Steering("fusion"), progress=print)
    assert kept.load(same) is not None


def test_models_that_differ_in_a_region_alone_have_other_results() -> None:
    """A module only calls by name what ONNX Runtime computes of it."""

    def key(mean: float) -> dict[str, Any]:
        nodes = [node("RandomNormalLike", "x", "n", mean=mean), node("Add", "x n", "y")]
        given, wanted = [("x", FLOAT, (1, 4))], [("y", FLOAT, (1, 4))]
        model = frontend.load(build(nodes, given, wanted), fallback=True)
        assert model.regions
        return resume.key(Trial(model, [], []), plans.plan(Options()))

    assert key(0.0) == key(0.0)
    assert key(0.0) != key(5.0)


def damaged(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


@pytest.mark.parametrize("suffix", [".json", ".hyb"])
@pytest.mark.parametrize(
    "damage",
    [
        damaged(lambda data: data[: len(data) // 2]),
        damaged(lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]),
        damaged(lambda _: b""),
        damaged(lambda _: b"{}"),
        Path.unlink,
    ],
)
def test_what_is_damaged_is_not_used_and_told(
    kept: Kept, suffix: str, damage: Callable[[Path], None]
) -> None:
    (path,) = kept.folder.glob(f"*{suffix}")
    damage(path)
    assert kept.load(Options()) is None
    assert not kept.notes or "was not used" in kept.notes[0]
    assert kept.notes or not path.exists()


def test_what_is_a_day_old_is_not_used(kept: Kept) -> None:
    assert replace(kept, now=lambda: 1000.0 + resume.OLDEST + 1).load(Options()) is None
    assert replace(kept, now=lambda: 999.0).load(Options()) is None  # a clock that went back


def test_a_disk_that_refuses_stops_nobody(kept: Kept, outcome: Outcome) -> None:
    full = replace(kept, folder=Path("/proc/nothing"), notes=[])
    full.save(Options(), outcome)
    assert "could not be kept" in full.notes[0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precisions that were timed; bf16 is said to take half of the others' time."""
    timed: list[str] = []

    def measured(session: InferenceSession, *_: object) -> Samples:
        half = "mixed-precision" in session.artifact.pipeline
        timed.append("bf16" if half else "fp32")
        if len(timed) == 2:
            raise KeyboardInterrupt
        return Samples((0.004 if half else 0.008,) * 20)

    monkeypatch.setattr(timing, "timed", measured)
    return timed


def test_an_interrupted_compilation_goes_on_and_measures_nothing_twice(clock: list[str]) -> None:
    with pytest.raises(
        KeyboardInterrupt, match="the stage that was measured is kept, and the same"
    ):
        driver.compile_source(classifier(), Options(contract=LIMITS))
    assert clock == ["fp32", "bf16"]
    found = driver.compile_source(classifier(), Options(contract=LIMITS))
    assert clock == ["fp32", "bf16", "bf16"]
    assert found.artifact.certificate["precision"] == "bf16"
    assert not list((settings.cache_directory() / "stages").glob("*"))  # it is done
    assert history.read()[-1].stage == "bf16"
    driver.compile_source(classifier(), Options(contract=LIMITS, steering=Steering(resume=False)))
    assert clock[3:] == ["fp32", "bf16"]


def test_what_is_interrupted_before_a_stage_was_measured_keeps_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "timed", interrupted)
    with pytest.raises(KeyboardInterrupt) as raised:
        driver.compile_source(classifier(), Options(contract=LIMITS))
    assert not str(raised.value)


def test_what_was_examined_last_is_kept_too(
    clock: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the interruption comes as two stages are compared."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    clock += ["", ""]  # nothing is interrupted while it is timed
    monkeypatch.setattr(Workshop, "in_turns", interrupted)
    monkeypatch.setattr(course, "in_doubt", lambda *_: True)
    with pytest.raises(KeyboardInterrupt, match="the 2 stages that were measured are kept"):
        driver.compile_source(classifier(), Options(contract=LIMITS))


def test_quantised_stages_are_resumed_and_narrowed_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interrupted while int8 is narrowed: int8 itself is measured no second time."""
    pipelines: list[str] = []

    def measured(session: InferenceSession, *_: object) -> Samples:
        text = session.artifact.pipeline
        pipelines.append(text)
        if len(pipelines) == 3:
            raise KeyboardInterrupt
        return Samples((0.004 if "quantize" in text else 0.008,) * 20)

    monkeypatch.setattr(timing, "timed", measured)
    monkeypatch.setattr(stages, "LOSSY", ("int8",))
    limits = Contract("5ms", min_accuracy={"cosine": 0.99999})
    data = DIGITS / "digits-test.npz"
    options = Options(target="avx2", threads=1, contract=limits, calibration=data)
    with pytest.raises(KeyboardInterrupt):
        driver.compile_source(DIGITS / "digits.onnx", options)
    assert ["quantize" in text for text in pipelines] == [False, True, True]
    assert "keep=" in pipelines[2]
    found = driver.compile_source(DIGITS / "digits.onnx", options)
    # Which narrowing comes first depends on how long kernels took.
    assert all("keep=" in text for text in pipelines[3:])
    (decision,) = [each for each in found.report.decisions if each.stage == "int8"]
    assert decision.operators is not None
    assert len(decision.operators["operators"]) == 4


def test_experience_is_kept_and_torn_lines_are_passed_over() -> None:
    row = Past("bf16", "a machine", (1.0, 2.0, 3.0, 4.0), 0.5, 0.4, 2.0)
    assert history.read() == ()
    assert history.add([row, row]) == ""
    with history.path().open("ab") as stream:
        stream.write(b'{"version": 2, "stage"\n[]\n{"version": 1}\n\xff\n')
        stream.write(b'{"version": 2, "stage": "x", "machine": "m", "features": [1, 2, 3, 4],')
        stream.write(b' "expected": NaN, "gained": 0, "seconds": 1}\n')
    history.add([row])
    assert history.read() == (row, row, row)
