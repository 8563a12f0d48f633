"""Measure an artifact again and say whether what its certificate promises still holds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm

from hybridc.compiler import frontend
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance import calibration, coverage, remembered
from hybridc.compiler.assurance.certify import Examined, examine
from hybridc.compiler.assurance.clause import Clause
from hybridc.compiler.assurance.contract import VALIDATE, Contract, fewest_samples
from hybridc.compiler.assurance.terms import Terms, Trial
from hybridc.compiler.assurance.validation import Validate
from hybridc.compiler.assurance.verify import How
from hybridc.compiler.errors import ArtifactError, InputError
from hybridc.compiler.hardware import host
from hybridc.compiler.measurement.clock import Clock, Progress
from hybridc.compiler.measurement.conditions import STEADY, Conditions
from hybridc.compiler.model import Array, Feed, Model, OpaqueSpec
from hybridc.compiler.orchestration import precisions
from hybridc.compiler.runtime import loading

_NUMBERS = ("max_latency", "latency_percentile", "min_throughput", "max_memory", "max_size")


@dataclass(frozen=True)
class Recheck:
    """What holds now.

    `unchecked` tells which limits could not be checked, and what they would need; `then` is what
    the machine did when the artifact was certified, if anybody watched it.  `before` are the
    clauses as the certificate has them, none where it tells nothing that is known, and `elsewhere`
    tells how this machine is another one.
    """

    clauses: tuple[Clause, ...]
    unchecked: tuple[str, ...]
    examined: Examined
    then: Conditions | None = None
    before: tuple[Clause, ...] = ()
    elsewhere: tuple[str, ...] = ()

    @property
    def machine(self) -> tuple[str, ...]:
        """What must be known of the machine to judge times.

        Whether it is another one, what disturbed it, and its clock.
        """
        now = self.examined.latency.conditions if self.examined.latency else None
        if now is None:
            return ()
        found = [*self.elsewhere]
        found += [] if now.quiet else [f"{now.text()} while calls were timed"]
        if self.then is not None and now.pace > STEADY * self.then.pace:
            slower = f"{now.pace / self.then.pace:.2g} times as long"
            found.append(f"the same computation takes {slower} as when the artifact was certified")
        return tuple(found)

    @property
    def empty(self) -> bool:
        """Whether there was nothing to measure and nothing to compare with."""
        return not self.clauses and not self.examined.agreement

    @property
    def holds(self) -> bool:
        """Whether every limit that could be checked is kept."""
        return not self.examined.broken


def recheck(
    artifact: Artifact,
    model: Path | None = None,
    data: Path | None = None,
    validate: Validate | None = None,
    progress: Progress = lambda _: None,
) -> Recheck:
    """Measure the limits of the artifact's contract again, on the threads of its target.

    `model` is the file that it was compiled from, whose reference the outputs are compared with;
    `data` are inputs (see `calibration.read`), by default random ones by the certificate's seed.
    Raises WrongAnswerError where outputs are beyond their tolerance, InputError where the data or
    the model do not fit the artifact, and ArtifactError where it cannot run here.  Tolerances are
    those that it was compiled with.
    """
    loading.check_host(artifact)
    feeds, told = _feeds(artifact, data)
    promised, unchecked = _promised(artifact, model is not None, validate)
    clock = Clock(progress)
    source, wanted = _stand_in(artifact), []
    if model is not None:
        with clock.stage("load"):
            source = _model(model, artifact)
        with clock.stage("reference"):
            wanted = [source.reference(feed) for feed in feeds]
        coverage.check(source, wanted, promised.min_accuracy, told)
    ranges = artifact.certificate.get("calibration")
    calibrated = ranges if isinstance(ranges, Mapping) else None
    terms = Terms(model is not None, _how(artifact), promised, told, calibrated=calibrated)
    trial = Trial(source, feeds, wanted)
    examined = examine(artifact, trial, terms, _memory(artifact, promised), clock.stage)
    clauses = promised.clauses(examined.measured)
    then = _conditions(artifact)
    before, other = _before(artifact, promised), _elsewhere(artifact)
    return Recheck(tuple(clauses), unchecked, examined, then, before, other)


def _how(artifact: Artifact) -> How:
    """What the answers were held to when the artifact was certified.

    Raises ArtifactError where the certificate says nothing that is known.
    """
    precision = str(artifact.certificate.get("precision", "fp32"))
    products = artifact.certificate.get("products", 0)
    if type(products) is not int or products < 0:
        raise ArtifactError(f"the certificate of {artifact.name} holds no products that are known")
    return How(_tolerance(artifact, "rtol"), _tolerance(artifact, "atol"), precision, products)


def _memory(artifact: Artifact, promised: Contract) -> int:
    """What a call holds at its peak, which is planned, not measured: by the artifact's report.

    Raises ArtifactError where a limit asks for it and the report does not tell.
    """
    told = artifact.report.get("memory")
    peak = told.get("peak") if isinstance(told, Mapping) else None
    if type(peak) is int and peak >= 0:
        return peak
    if promised.max_memory is not None:
        raise ArtifactError(f"the report of {artifact.name} has no peak memory that is known")
    return 0


def _tolerance(artifact: Artifact, name: str) -> float | None:
    """What the artifact was compiled with, by its certificate; None for that of the dtype.

    Raises ArtifactError where that is no tolerance.
    """
    given = artifact.certificate.get("tolerances", {})
    found = given.get(name) if isinstance(given, Mapping) else math.nan
    if found is not None and not (type(found) in (int, float) and 0 <= found < math.inf):
        raise ArtifactError(f"the certificate of {artifact.name} has an invalid {name}")
    return found


def _conditions(artifact: Artifact) -> Conditions | None:
    """What the certificate tells of the machine; None where it is nothing that is known."""
    try:
        return Conditions.of_json(artifact.certificate["latency"]["conditions"])
    except (KeyError, TypeError, ValueError):
        return None


def _elsewhere(artifact: Artifact) -> tuple[str, ...]:
    """How this machine is another than the one that the times of the certificate are of."""
    found: list[str] = []
    there, here = artifact.certificate.get("machine"), host.cpu_model()
    if isinstance(there, str) and there != here:
        found.append(f"this is {here}, and the artifact was certified on {there}")
    threads, cores = int(artifact.target["threads"]), host.cores()
    if cores < threads:
        found.append(f"it ran on {cores} of the {threads} threads that it was compiled for")
    return tuple(found)


def _before(artifact: Artifact, promised: Contract) -> tuple[Clause, ...]:
    """The limits with what the certificate says was measured."""
    try:
        measured = remembered.measured(artifact.certificate["measured"])
    except remembered.UNKNOWN:
        return ()
    return tuple(promised.clauses(measured))


def _feeds(artifact: Artifact, data: Path | None) -> tuple[calibration.Feeds, str]:
    if data is not None:
        given = calibration.read(data)
        return calibration.feeds_for("the", given, artifact.inputs), "data given"
    seed = artifact.certificate.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise ArtifactError(f"the certificate of {artifact.name} has an invalid seed")
    count = fewest_samples(_limits(artifact).get("min_accuracy", ()))
    if count == 1 and artifact.certificate.get("precision", precisions.FULL) != precisions.FULL:
        # As when it was compiled: of fewer elements the largest may be near zero by chance.
        count = calibration.enough(calibration.floats(artifact.outputs))
    return calibration.random_feeds(artifact.inputs, seed, count), f"random, seed {seed}"


def _promised(
    artifact: Artifact, compared: bool, validate: Validate | None
) -> tuple[Contract, tuple[str, ...]]:
    """The certificate's contract as far as it can be checked, and a sentence for the rest."""
    limits = _limits(artifact)
    named = limits.pop("validate", None)
    accuracy = dict(limits.pop("min_accuracy", {}))
    drop = dict(limits.pop("max_drop", {}))
    unchecked: list[str] = []
    if validate is None and (VALIDATE in accuracy or drop):
        unchecked.append(f"the limits on {named} need --validate")
        accuracy.pop(VALIDATE, None)
        drop = {}
    if not compared and drop:
        unchecked.append(f"the drop of {named} needs --model")
        drop = {}
    if not compared and (others := [name for name in accuracy if name != VALIDATE]):
        verb = "needs" if len(others) == 1 else "need"
        unchecked.append(f"accuracy {', '.join(others)} {verb} --model")
        accuracy = {name: limit for name, limit in accuracy.items() if name == VALIDATE}
    contract = Contract(min_accuracy=accuracy, max_drop=drop, validate=validate, **limits)
    return contract, tuple(unchecked)


def _limits(artifact: Artifact) -> dict[str, Any]:
    """The limits as the certificate describes them; an artifact may come from anywhere."""
    found = artifact.certificate.get("contract", {})
    if not isinstance(found, Mapping) or not all(_known(*each) for each in found.items()):
        raise ArtifactError(f"the certificate of {artifact.name} has an invalid contract")
    return dict(found)


def _known(name: str, value: Any) -> bool:
    if name in ("min_accuracy", "max_drop"):
        return isinstance(value, Mapping) and all(type(x) in (int, float) for x in value.values())
    if name == "validate":
        return isinstance(value, str)
    return name in _NUMBERS and type(value) in (int, float)


def _stand_in(artifact: Artifact) -> Model:
    """A model that only says what goes in and out."""

    def reference(_: Feed) -> list[Array]:
        raise InputError("the reference's own figure needs --model")

    return Model(artifact.name, tvm.IRModule({}), artifact.inputs, artifact.outputs, reference)


def _model(path: Path, artifact: Artifact) -> Model:
    plain = [spec for spec in artifact.inputs if not isinstance(spec, OpaqueSpec)]
    shapes = {spec.name: spec.shape for spec in plain}
    try:
        model = frontend.load(path, shapes=shapes if frontend.is_onnx(path) else {}, fallback=True)
    except InputError as error:
        raise InputError(
            f"{path} does not load as what the artifact was compiled from: {error}"
        ) from error
    for kind, wanted, given in (
        ("inputs", artifact.inputs, model.inputs),
        ("outputs", artifact.outputs, model.outputs),
    ):
        if wanted != given:
            described = (", ".join(spec.describe() for spec in specs) for specs in (wanted, given))
            raise InputError(
                f"{path} is not what the artifact was compiled from: {kind} wanted: "
                f"{'; given: '.join(described)}"
            )
    return model
