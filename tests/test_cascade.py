"""The cascade: which stages are tried, what stays, what is told, on candidates made up."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_driver import classifier

from hybridc.compiler import driver
from hybridc.compiler.assurance import timing
from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import ContractError, MissingRecordError, PassError, WrongAnswerError
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.orchestration import advice, cascade, stages
from hybridc.compiler.orchestration.candidates import Means
from hybridc.compiler.quantization.sensitivity import Lowered
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.tuning.options import Tuning

pytestmark = pytest.mark.usefixtures("hasty")

exactly = Estimate.exactly
# A CPU that multiplies in bf16 and in bytes.
WIDE = '{"kind": "llvm", "mcpu": "cooperlake"}'
FAST = Contract("5ms", min_accuracy={"cosine": 0.999})


@dataclass(frozen=True)
class Candidate:
    """A latency in ms and a cosine."""

    name: str
    milliseconds: float
    cosine: float = 1.0
    sensitive: Lowered | None = None

    @property
    def measured(self) -> Measured:
        return Measured(exactly(self.milliseconds / 1e3), accuracy={"cosine": exactly(self.cosine)})


def attempts(**found: Candidate | Exception) -> Callable[[Options], Candidate]:
    """What each stage gives: `exact`, `tuned`, `bf16`, `tuned_bf16`; int8 always fails."""

    def attempt(options: Options) -> Candidate:
        if options.dtype == "int8":
            raise MissingRecordError("no record") if options.lock else PassError("no bytes")
        parts = ["tuned"] * bool(options.tuning) + ["bf16"] * (options.dtype == "bf16")
        result = found["_".join(parts) or "exact"]
        if isinstance(result, Exception):
            raise result
        return result

    return attempt


def run(options: Options, attempt: Callable[[Options], Candidate]) -> cascade.Cascaded[Candidate]:
    return cascade.run(options, Means(attempt))


def verdicts(cascaded: cascade.Cascaded[Candidate]) -> list[tuple[str, str]]:
    return [(each.stage, each.verdict) for each in cascaded.decisions]


TUNED = Options(contract=FAST, tuning=Tuning(), target=WIDE)
EXACT, SLOW = Candidate("exact", 8), Candidate("slow", 9)


@pytest.fixture(autouse=True)
def _few_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LOSSY", ("bf16", "int8"))


def test_it_stops_at_the_first_that_keeps_the_contract() -> None:
    found = run(TUNED, attempts(exact=Candidate("exact", 4)))
    assert found.best.name == "exact"
    later = [(name, "not needed") for name in ("tuned", "bf16", "int8")]
    assert verdicts(found) == [("exact", "kept"), *later]
    assert found.advice == ()


def test_stages_add_up() -> None:
    tuned, both = Candidate("tuned", 6), Candidate("both", 4, 0.9995)
    found = run(TUNED, attempts(exact=EXACT, tuned=tuned, tuned_bf16=both))
    assert found.best == both
    kept = [(name, "kept") for name in ("exact", "tuned", "bf16")]
    assert verdicts(found) == [*kept, ("int8", "not needed")]


def test_what_is_no_faster_is_rolled_back() -> None:
    found = run(TUNED, attempts(exact=EXACT, tuned=SLOW, bf16=Candidate("bf16", 4)))
    assert found.best.name == "bf16"
    assert verdicts(found)[1] == ("tuned", "rolled back")
    reason = "no nearer to the limits: latency 9 ms of 5 ms, 8 ms before"
    assert found.decisions[1].reason == reason
    found = run(replace(TUNED, dtype="fp32"), attempts(exact=EXACT, tuned=SLOW))
    assert found.advice == (
        "nearest: latency 8 ms of 5 ms at cosine 1",
        f"tuned did not help: {reason}",
    )


def test_what_breaks_the_accuracy_is_rolled_back_and_told() -> None:
    rough = Candidate("bf16", 4, 0.99)
    found = run(replace(TUNED, tuning=None), attempts(exact=EXACT, bf16=rough))
    assert found.best == EXACT
    assert found.decisions[1].reason == "accuracy cosine: wanted at least 0.999, measured 0.99"
    assert found.advice == (
        "nearest: latency 8 ms of 5 ms at cosine 1",
        "int8 did not help: no bytes",
        "without the limit on accuracy bf16 would reach latency 4 ms, accuracy cosine 0.99",
    )


def test_the_size_of_a_file_that_is_not_finished_is_not_told() -> None:
    """The final one stands in the sentence on its limit."""

    class Large:
        measured = Measured(size=10_000, accuracy={"cosine": exactly(1.0)})
        sensitive = None

    options = Options(contract=Contract(max_size="3kB", min_accuracy={"cosine": 0.9}))
    assert not [each for each in advice.advice(options, Large(), (), ()) if "nearest" in each]
    weightless: Any = SimpleNamespace(code=4000)
    told = advice.advice(options, Large(), (), (), lambda: weightless)
    assert told == ["no precision is that small: 4 kB are not weights"]


def test_what_would_be_no_nearer_without_the_limit_on_accuracy_is_not_advised() -> None:
    rough = Candidate("bf16", 9, 0.99)
    found = run(replace(TUNED, tuning=None), attempts(exact=EXACT, bf16=rough))
    assert found.advice[0] == "nearest: latency 8 ms of 5 ms at cosine 1"
    assert not [each for each in found.advice if "without the limit" in each]


def test_names_are_listed() -> None:
    assert [advice.listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]


@pytest.mark.parametrize("error", [WrongAnswerError("wrong"), PassError("no such luck")])
def test_a_later_stage_that_fails_is_skipped(error: Exception) -> None:
    found = run(replace(TUNED, tuning=None), attempts(exact=EXACT, bf16=error))
    assert found.best == EXACT
    verdict = "rolled back" if isinstance(error, WrongAnswerError) else "failed"
    assert (found.decisions[1].verdict, found.decisions[1].reason) == (verdict, str(error))
    with pytest.raises(type(error)):
        run(TUNED, attempts(exact=error))


def test_precision_is_kept_without_a_limit_on_accuracy() -> None:
    limits = Options(contract=Contract("5ms"))
    found = run(limits, attempts(exact=EXACT))
    assert verdicts(found) == [("exact", "kept")]
    assert "would allow int8" in found.advice[0].replace("bf16 and ", "")
    for chosen in (replace(TUNED, dtype="fp32"), replace(TUNED, exact=True)):
        assert [each.name for each in stages.stages(chosen)] == ["exact", "tuned"]
    assert [each.name for each in stages.stages(Options())] == ["exact"]


def test_a_precision_that_cannot_be_faster_is_skipped() -> None:
    here = replace(TUNED, tuning=None, target="avx2")
    found = run(here, attempts(exact=EXACT))
    assert verdicts(found) == [("exact", "kept"), ("bf16", "skipped"), ("int8", "failed")]
    assert found.decisions[1].reason == "no faster: calls do not wait for the weights"


def test_tuning_that_no_contract_limits_is_done_at_once() -> None:
    (stage,) = stages.stages(Options(tuning=Tuning()))
    assert stage.change(Options()).tuning is not None


def test_a_lock_says_by_its_kernels_what_it_was_written_for() -> None:
    locked = Options(lock=Path("schedule.lock"))
    missing = MissingRecordError("no such kernel")
    found = run(locked, attempts(exact=missing, bf16=Candidate("bf16", 4)))
    assert found.best.name == "bf16"
    with pytest.raises(MissingRecordError):
        run(locked, attempts(exact=missing, bf16=missing))


def test_a_model_goes_through_its_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of bf16 are said to take half the time of others."""

    def measured(session: InferenceSession, *_: object) -> Samples:
        half = "mixed-precision" in session.artifact.pipeline
        return Samples((0.004 if half else 0.008,) * 20)

    monkeypatch.setattr(timing, "timed", measured)
    limits = Contract("5ms", min_accuracy={"cosine": 0.99}, max_size="100MB")
    outcome = driver.compile_source(classifier(), Options(contract=limits))
    found = [each.verdict for each in outcome.report.decisions]
    assert found == ["kept", "kept", "not needed"]
    assert outcome.artifact.certificate["precision"] == "bf16"
    assert outcome.artifact.certificate["kept"] is True
    told = outcome.report.summary().splitlines()
    assert [line.split()[:2] for line in told[-4:-2]] == [["exact", "kept"], ["bf16", "kept"]]
    assert told[-2].startswith("stages not needed: ")
    decisions = outcome.artifact.report["decisions"]
    assert decisions[0]["measured"]["latency"]["value"] == 0.008
    with pytest.raises(
        ContractError, match=r"measured 8 ms; .*--min-accuracy.* would allow .*int8"
    ):
        driver.compile(classifier(), contract=Contract("5ms"))
