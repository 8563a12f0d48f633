"""Measure a finished artifact against its model's reference and against the contract."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance import accuracy as accuracies
from hybridc.compiler.assurance import (
    answers,
    calibration,
    coverage,
    open_answers,
    timing,
    validation,
)
from hybridc.compiler.assurance import certificate as certificates
from hybridc.compiler.assurance.answers import Answers
from hybridc.compiler.assurance.calibration import Feeds
from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import VALIDATE, Contract, Measured
from hybridc.compiler.assurance.open_answers import Sized
from hybridc.compiler.assurance.terms import Terms, Trial
from hybridc.compiler.assurance.validation import ReferenceRunner, Runner, Validate
from hybridc.compiler.assurance.verify import Comparison
from hybridc.compiler.errors import InputError
from hybridc.compiler.hardware import host
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.model import Array, Model, OpaqueSpec, open_dims
from hybridc.compiler.orchestration.time_budget import TimeBudget
from hybridc.compiler.runtime.session import InferenceSession

Stages = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Examined:
    """What was found, and a sentence for each limit of the contract that does not hold."""

    agreement: tuple[Comparison, ...]
    latency: Samples | None
    measured: Measured
    certificate: dict[str, Any]
    broken: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Compared:
    """How near the answers are to the reference's, also at other sizes, and by each metric."""

    agreement: tuple[Comparison, ...] = ()
    sized: Sequence[Sized] = ()
    accuracy: Mapping[str, Estimate] = field(default_factory=dict[str, Estimate])


@dataclass(frozen=True)
class _Own:
    """What the user's function says: its figure, and how much lower it is than the reference's."""

    accuracy: Mapping[str, Estimate] = field(default_factory=dict[str, Estimate])
    drop: Mapping[str, Estimate] = field(default_factory=dict[str, Estimate])


def examine(draft: Artifact, trial: Trial, terms: Terms, memory: int, stage: Stages) -> Examined:
    """Run the artifact as far as the terms need it; `stage` times what is done within.

    `memory` is what a call holds at its peak, in bytes.  Raises WrongAnswerError where an output is
    beyond its tolerance, and InputError where this host cannot run the artifact, or the user's
    function fails.
    """
    contract = terms.contract
    absent = "" if terms.demanding else draft.unfit()
    runs = terms.demanding or (bool(trial.wanted) and not absent)
    session = _session(draft, stage) if runs else None
    compared, own, samples = _Compared(), _Own(), None
    if session is not None:
        compared = _compare(session, trial, terms, stage)
        own = _validate(session, trial.model, terms, stage)
        samples = _timed(session, trial, terms, stage)
    measured = Measured(
        **({} if samples is None else rates(samples, contract)),
        memory=memory,
        size=draft.size() if contract.max_size else None,
        accuracy={**compared.accuracy, **own.accuracy},
        drop=own.drop,
    )
    broken = tuple(contract.judge(measured))
    certificate = certificates.written(trial, terms, compared.agreement, measured, broken)
    chosen = trial.slowest.found
    certificate |= open_answers.described(trial.feeds, trial.model, compared.sized, chosen)
    certificate |= certificates.run_on(session, samples, trial.slowest.told)
    notes = [f"not verified here: {absent}"] if absent and trial.wanted else []
    notes += [each.told() for each in compared.agreement if each.allowances]
    return Examined(compared.agreement, samples, measured, certificate, broken, tuple(notes))


def rates(samples: Samples, contract: Contract) -> dict[str, Any]:
    """What samples say of time, as fields of `Measured`."""
    return {
        "latency": samples.percentile(contract.latency_percentile),
        "throughput": samples.throughput,
        "disturbed": samples.disturbed,
    }


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


def _compare(session: InferenceSession, trial: Trial, terms: Terms, stage: Stages) -> _Compared:
    """Compare the answers, where the reference's are known."""
    if not trial.wanted:
        return _Compared()
    with stage("verify"):
        got, trial.slowest.seen = _answers(session, trial.feeds, terms)
        agreement, sized = _agreement(session, trial, terms, got)
        accuracy = _accuracies(terms.contract, trial, got, terms.time_budget)
    return _Compared(agreement, sized, accuracy)


def _validate(session: InferenceSession, model: Model, terms: Terms, stage: Stages) -> _Own:
    """Ask the user's function, if there is one."""
    contract = terms.contract
    if contract.validate is None:
        return _Own()
    with stage("validate"):
        found = _figure(contract.validate, session, terms.time_budget)
        lost = {}
        if contract.max_drop:
            lost = {VALIDATE: _drop(contract.validate, model, found, terms.time_budget)}
    return _Own({VALIDATE: found}, lost)


def _timed(session: InferenceSession, trial: Trial, terms: Terms, stage: Stages) -> Samples | None:
    """Time calls on the slowest of the samples, where the terms need it."""
    if not terms.clocked:
        return None
    with stage("measure"):
        feed = trial.slowest.of(session, trial.feeds, terms.time_budget.left)
        return timing.timed(session, feed, terms.contract, terms.time_budget.left)


def _answers(
    session: InferenceSession, feeds: Feeds, terms: Terms
) -> tuple[list[list[Array]], list[float]]:
    """What the artifact computes of all samples, while there is time, and seconds of each call."""
    found, seconds = list[list[Array]](), list[float]()
    for feed in feeds:
        terms.time_budget.check("all samples are verified")
        start = time.perf_counter()
        outputs = session.run(None, feed)
        seconds.append(time.perf_counter() - start)
        found.append(calibration.owned(outputs))
    return found, seconds


def _agreement(
    session: InferenceSession, trial: Trial, terms: Terms, got: Answers
) -> tuple[tuple[Comparison, ...], Sequence[Sized]]:
    """Each output's comparison over all samples and, where sizes are open, at several of these."""
    if not terms.verify:
        return (), ()
    check = terms.time_budget.check
    found = answers.compare(trial.model, trial.feeds, trial.wanted, got, terms.how, check)
    sized: Sequence[Sized] = ()
    if open_dims(trial.model.inputs) or trial.model.ways:
        sized = trial.references.of(trial.model, terms.seed)
        compared = open_answers.compare(session, trial.model, sized, terms.how, check)
        found = open_answers.worst(found, compared)
    # Of ranges that data gave the contract says how much they may cost, where it limits accuracy.
    limits = [] if terms.calibrated is None else terms.contract.limited
    others = coverage.unlimited(trial.model, trial.wanted, limits) if limits else None
    held = [each for each in found if others is None or each.output in others]
    answers.check(trial.model, trial.feeds, trial.wanted, held, terms.how.precision)
    return found, sized


def _accuracies(
    contract: Contract, trial: Trial, got: Answers, time_budget: TimeBudget
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


def _figure(validate: Validate, runner: Runner, time_budget: TimeBudget) -> Estimate:
    """The user's figure; how it would vary with other data, only the user knows."""
    return Estimate.exactly(validation.figure(validate, runner, time_budget.left))


def _drop(validate: Validate, model: Model, found: Estimate, time_budget: TimeBudget) -> Estimate:
    reference = _figure(validate, ReferenceRunner(model), time_budget)
    return Estimate.exactly(reference.value - found.value)
