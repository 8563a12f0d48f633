"""Stages that are compiled at once, each in a process of its own."""

from pathlib import Path
from typing import Any

import pytest
from made_up import verdicts

from hybridc.compiler import driver
from hybridc.compiler.assurance import timing
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.orchestration import side_by_side
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.processes.child import ChildError
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.tuning.options import Tuning

pytestmark = pytest.mark.usefixtures("bf16_alone", "hasty")
LOOSE = Contract(min_accuracy={"cosine": 0.99})
PARALLEL = Options(contract=LOOSE, steering=Steering("parallel"), threads=1)


@pytest.fixture(autouse=True)
def _half_the_time_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(session: InferenceSession, *_: object) -> Samples:
        half = "mixed-precision" in session.artifact.pipeline
        return Samples((0.004 if half else 0.008,) * 20)

    monkeypatch.setattr(timing, "timed", measured)


def test_options_cross_to_a_process_and_back() -> None:
    given = Options(
        contract=LOOSE, dtype="bf16", plugins=(Path("a.py"),), lock=Path("b"), seed=3, threads=1
    )
    told = side_by_side.portable(given)
    assert told is not None
    again = Options(**side_by_side.restored(told), contract=LOOSE)
    assert again == given
    assert side_by_side.portable(Options(tuning=Tuning())) is None  # it measures
    assert side_by_side.workers(None, 1) == 1
    assert side_by_side.workers(8, 3) == 3


def test_what_processes_compiled_is_measured_and_the_best_stays(tiny_model: Path) -> None:
    outcome = driver.compile_source(tiny_model, PARALLEL)
    assert any("stages in" in stage.name for stage in outcome.report.stages)
    assert verdicts_of(outcome)["bf16"] == "kept"
    assert outcome.artifact.certificate["precision"] == "bf16"
    told = outcome.artifact.report
    assert told["contributions"]["precision"] == pytest.approx(1.0)
    assert told["component_results"][0]["component"] in ("precision", "subgraph")


@pytest.mark.parametrize("module", ["hybridc.nosuch", "this"])
def test_a_process_that_dies_takes_only_its_stage_with_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setattr(side_by_side, "WORKER", module)
    outcome = driver.compile_source(tiny_model, PARALLEL)
    assert verdicts_of(outcome)["exact"] == "kept"
    assert verdicts_of(outcome)["bf16"] == "failed"
    reasons = {each.stage: each.reason for each in outcome.report.decisions}
    assert "its process " in reasons["bf16"]


def test_a_signal_is_told_by_its_name() -> None:
    died = ChildError(-11, "in 0xffffffffffffffff", timed_out=False)
    assert str(died) == "its process was ended by SIGSEGV"


def verdicts_of(outcome: Any) -> dict[str, str]:
    return verdicts(outcome.report)
