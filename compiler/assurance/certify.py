"""Measure a finished artifact against its model's reference and against the contract."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance import accuracy as accuracies
from hybridc.compiler.assurance import (
    answers,
    calibration,
    confidence,
    coverage,
    open_answers,
    samples,
    timing,
    validation,
)
from hybridc.compiler.assurance.calibration import Feeds
from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import VALIDATE, Contract, Measured
from hybridc.compiler.assurance.open_answers import References, Sized
from hybridc.compiler.assurance.validation import ReferenceRunner, Runner, Validate
from hybridc.compiler.assurance.verify import Comparison, How
from hybridc.compiler.errors import InputError
from hybridc.compiler.hardware import host
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.model import Array, Model, OpaqueSpec, open_dims
from hybridc.compiler.orchestration.time_budget import TimeBudget
from hybridc.compiler.runtime.session import InferenceSession

Stages = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Trial:
    """A model, the inputs to try it on, and the reference's outputs for each of them.

    `wanted` is empty where nobody asks for them.  `data` tells what the feeds are, and
    has other data to find ranges on.  `references` holds what is wanted at other sizes, where some
    are open.
    """

    model: Model
    feeds: Feeds
    wanted: Sequence[Sequence[Array]]
    data: samples.Samples | None = None
    references: References = field(default_factory=References)

    def unseen(self) -> "Trial":
        """The same on the feeds alone that gave no ranges, for what was made with these."""
        if self.data is None or self.data.apart is None:
            return self
        feeds = [self.feeds[i] for i in self.data.apart]
        wanted = [self.wanted[i] for i in self.data.apart] if self.wanted else self.wanted
        data = replace(self.data, feeds=feeds, told=samples.SPLIT, apart=None)
        return replace(self, feeds=feeds, wanted=wanted, data=data)


@dataclass(frozen=True)
class Terms:
    """What is demanded of an artifact: `how` near its answers have to be, and a contract.

    `verify` is false where no output is to be compared; `timed` asks for times without a limit too;
    `time_budget` covers all of it.  `calibrated` says for the certificate which other data gave the
    ranges of quantisation; None where there were none.
    """

    verify: bool
    how: How
    contract: Contract
    data: str  # what the inputs are, for the certificate
    seed: int = 0
    timed: bool = False
    time_budget: TimeBudget = field(default_factory=TimeBudget)
    calibrated: Mapping[str, Any] | None = None

    def runs(self, trial: Trial) -> bool:
        """Whether the artifact is called."""
        contract = self.contract
        demanded = contract.timed or contract.validate is not None or contract.min_accuracy
        return bool(trial.wanted or self.timed or demanded)

    @property
    def tolerances(self) -> dict[str, float]:
        """Those that were given, by name, for the certificate."""
        given = {"rtol": self.how.rtol, "atol": self.how.atol}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Examined:
    """What was found, and a sentence for each limit of the contract that does not hold."""

    agreement: tuple[Comparison, ...]
    latency: Samples | None
    measured: Measured
    certificate: dict[str, Any]
    broken: tuple[str, ...]
    notes: tuple[str, ...] = ()


def examine(draft: Artifact, trial: Trial, terms: Terms, memory: int, stage: Stages) -> Examined:
    """Run the artifact as far as the terms need it; `stage` times what is done within.

    `memory` is what a call holds at its peak, in bytes.  Raises WrongAnswerError where an output is
    beyond its tolerance, and InputError where this host cannot run the artifact, or the user's
    function fails.
    """
    contract = terms.contract
    timed = contract.timed or terms.timed
    wanted = timed or contract.validate is not None or bool(contract.min_accuracy)
    absent = "" if wanted else draft.unfit()
    runs = wanted or (_runs(trial, contract) and not absent)
    session = _session(draft, stage) if runs else None
    agreement: tuple[Comparison, ...] = ()
    sized: Sequence[Sized] = ()
    accuracy: dict[str, Estimate] = {}
    drop: dict[str, Estimate] = {}
    samples: Samples | None = None
    found: dict[str, Any] = {}
    if session is not None and trial.wanted:
        with stage("verify"):
            got = _answers(session, trial.feeds, terms)
            agreement, sized = _compare(session, trial, terms, got)
            accuracy = _accuracies(contract, trial, got, terms.time_budget)
    if session is not None and contract.validate is not None:
        with stage("validate"):
            accuracy |= {VALIDATE: _own(contract.validate, session, terms.time_budget)}
            if contract.max_drop:
                lost = _drop(contract.validate, trial.model, accuracy[VALIDATE], terms.time_budget)
                drop = {VALIDATE: lost}
    if session is not None and timed:
        with stage("measure"):
            samples = timing.timed(session, trial.feeds[0], contract, terms.time_budget.left)
            found = rates(samples, contract)
    measured = Measured(
        **found,
        memory=memory,
        size=draft.size() if contract.max_size else None,
        accuracy=accuracy,
        drop=drop,
    )
    broken = tuple(contract.judge(measured))
    certificate = _certificate(trial, terms, agreement, measured, broken)
    certificate |= open_answers.described(trial.feeds, trial.model, sized)
    certificate |= _run_on(session, samples)
    notes = [f"not verified here: {absent}"] if absent and trial.wanted else []
    notes += [each.told() for each in agreement if each.condition or each.excused]
    return Examined(agreement, samples, measured, certificate, broken, tuple(notes))


def retimed(
    certificate: Mapping[str, Any], measured: Measured, samples: Samples, contract: Contract
) -> dict[str, Any]:
    """A certificate after calls were timed anew: all that it says of time, and of the contract."""
    return judged({**certificate, "latency": samples.to_json()}, measured, contract)


def judged(
    certificate: Mapping[str, Any], measured: Measured, contract: Contract
) -> dict[str, Any]:
    """A certificate with what is measured now, and what the contract, if any, says of it."""
    if not contract.describe():
        return dict(certificate)
    broken = contract.judge(measured)
    return {**certificate, "kept": not broken, "broken": broken, "measured": measured.to_json()}


def rates(samples: Samples, contract: Contract) -> dict[str, Any]:
    """What samples say of time, as fields of `Measured`."""
    return {
        "latency": samples.percentile(contract.latency_percentile),
        "throughput": samples.throughput,
        "disturbed": samples.disturbed,
    }


def _run_on(session: InferenceSession | None, samples: Samples | None) -> dict[str, Any]:
    """For the certificate: where the artifact ran, and how long calls took, if it did."""
    found: dict[str, Any] = {} if session is None else {"machine": host.cpu_model()}
    return found if samples is None else {**found, "latency": samples.to_json()}


def _runs(trial: Trial, contract: Contract) -> bool:
    return bool(trial.wanted) or contract.validate is not None


def _certificate(
    trial: Trial,
    terms: Terms,
    agreement: Sequence[Comparison],
    measured: Measured,
    broken: Sequence[str],
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "precision": terms.how.precision,
        "data": f"{terms.data}, {_counted(len(trial.feeds))}",
        "data_blake3": calibration.digest(trial.feeds),
        "seed": terms.seed,
        "agreement": list(map(_brief, agreement)),
    }
    if terms.how.products:
        said["products"] = terms.how.products
    if terms.calibrated is not None:
        said["calibration"] = dict(terms.calibrated)
    if terms.tolerances:
        said["tolerances"] = terms.tolerances
    if promised := terms.contract.describe():
        said |= {
            "contract": promised,
            "confidence": confidence.LEVEL,
            "kept": not broken,
            "broken": list(broken),
            "measured": measured.to_json(),
        }
    return said


def _accuracies(
    contract: Contract, trial: Trial, got: Sequence[Sequence[Array]], time_budget: TimeBudget
) -> dict[str, Estimate]:
    """Each metric over the outputs that have one shape; those that are opaque have no metric."""
    found: dict[str, Estimate] = {}
    places = [i for i, spec in enumerate(trial.model.outputs) if not isinstance(spec, OpaqueSpec)]
    pair = [[[sample[i] for i in places] for sample in side] for side in (trial.wanted, got)]
    for name in contract.min_accuracy:
        if name != VALIDATE:
            time_budget.check(f"the accuracy {name} is known")
            found[name] = accuracies.estimate(name, *pair)
    return found


def _own(validate: Validate, runner: Runner, time_budget: TimeBudget) -> Estimate:
    """The user's figure; how it would vary with other data, only the user knows."""
    return Estimate.exactly(validation.figure(validate, runner, time_budget.left))


def _drop(validate: Validate, model: Model, found: Estimate, time_budget: TimeBudget) -> Estimate:
    reference = _own(validate, ReferenceRunner(model), time_budget)
    return Estimate.exactly(reference.value - found.value)


def _session(draft: Artifact, stage: Stages) -> InferenceSession:
    if unfit := draft.unfit():
        raise InputError(
            f"the artifact can be neither verified nor measured here: {unfit}; compile it without"
            " a contract, and verify it (hybridc verify) where it is to run"
        )
    if lacking := draft.lacking():
        raise InputError(
            f"this CPU lacks {', '.join(lacking)}, so the artifact can be neither verified nor "
            f"measured here; compile with --verify off and no contract, or for --target cpu"
        )
    with stage("load artifact"):
        return InferenceSession(draft, min(int(draft.target["threads"]), host.cores()))


def _answers(session: InferenceSession, feeds: Feeds, terms: Terms) -> list[list[Array]]:
    """What the artifact computes of all samples, while there is time."""
    found: list[list[Array]] = []
    for feed in feeds:
        terms.time_budget.check("all samples are verified")
        found.append(calibration.owned(session.run(None, feed)))
    return found


def _counted(samples: int) -> str:
    return "1 sample" if samples == 1 else f"{samples} samples"


def _brief(comparison: Comparison) -> dict[str, Any]:
    """The part of a comparison that a certificate states."""
    keys = ("output", "rtol", "atol", "max_abs", "cosine")
    described = comparison.describe()
    brief = {key: described[key] for key in keys}
    return brief | {"condition": comparison.condition} if comparison.condition else brief


def _compare(
    session: InferenceSession, trial: Trial, terms: Terms, got: Sequence[Sequence[Array]]
) -> tuple[tuple[Comparison, ...], Sequence[Sized]]:
    """Each output's comparison over all samples and, where sizes are open, at several of these."""
    if not terms.verify:
        return (), ()
    check = terms.time_budget.check
    found = answers.compare(trial.model, trial.feeds, trial.wanted, got, terms.how, check)
    sized: Sequence[Sized] = ()
    if open_dims(trial.model.inputs):
        sized = trial.references.of(trial.model, terms.seed)
        compared = open_answers.compare(session, trial.model, sized, terms.how, check)
        found = open_answers.worst(found, compared)
    # Of ranges that data gave the contract says how much they may cost, where it limits accuracy.
    limits = [] if terms.calibrated is None else terms.contract.limited
    others = coverage.unlimited(trial.model, trial.wanted, limits) if limits else None
    held = [each for each in found if others is None or each.output in others]
    answers.check(trial.model, trial.feeds, trial.wanted, held, terms.how.precision)
    return found, sized
