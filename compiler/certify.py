"""Measure a finished artifact against its model's reference and against the contract."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler import host, measure, verify
from hybridc.compiler.artifact import Artifact
from hybridc.compiler.calibration import Feeds
from hybridc.compiler.contract import Contract, Measured
from hybridc.compiler.errors import InputError
from hybridc.compiler.measure import Samples
from hybridc.compiler.model import Array, Model
from hybridc.compiler.session import InferenceSession
from hybridc.compiler.verify import Comparison

Stages = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Trial:
    """A model, the inputs to try it on, and the reference's outputs for each of them.

    `wanted` is empty where nobody asks for them.
    """

    model: Model
    feeds: Feeds
    wanted: Sequence[Sequence[Array]]


@dataclass(frozen=True)
class Terms:
    """What is demanded of an artifact: tolerances (None for those of the dtype) and a contract.

    `verify` is false where no output is to be compared.
    """

    verify: bool
    rtol: float | None
    atol: float | None
    contract: Contract
    data: str  # what the inputs are, for the certificate
    precision: str = "fp32"


@dataclass(frozen=True)
class Examined:
    """What was found, and a sentence for each limit of the contract that does not hold."""

    agreement: tuple[Comparison, ...]
    latency: Samples | None
    certificate: dict[str, Any]
    broken: tuple[str, ...]


def examine(draft: Artifact, trial: Trial, terms: Terms, stage: Stages) -> Examined:
    """Run the artifact as far as the terms need it; `stage` times what is done within.

    Raises WrongAnswerError where an output is beyond its tolerance, and InputError where this
    host cannot run the artifact.
    """
    contract = terms.contract
    agreement: tuple[Comparison, ...] = ()
    accuracy: dict[str, float] = {}
    samples: Samples | None = None
    timed = contract.max_latency is not None or contract.min_throughput is not None
    session = _session(draft) if trial.wanted or timed else None
    if session is not None and trial.wanted:
        with stage("verify"):
            wanted = _stacked(trial.wanted)
            got = _stacked([session.run(None, feed) for feed in trial.feeds])
            agreement = _compare(trial, terms, wanted, got)
            accuracy = {m: verify.accuracy(m, wanted, got) for m in contract.min_accuracy}
    if session is not None and timed:
        with stage("measure"):
            samples = measure.latency(lambda: session.run(None, trial.feeds[0]))
    measured = Measured(
        latency=samples.median if samples else None,
        throughput=1 / samples.median if samples else None,
        size=_size(draft) if contract.max_size else None,
        accuracy=accuracy,
    )
    broken = tuple(contract.judge(measured))
    certificate: dict[str, Any] = {
        "precision": terms.precision,
        "data": f"{terms.data}, {len(trial.feeds)} samples",
        "agreement": list(map(_brief, agreement)),
    }
    if promised := contract.describe():
        certificate |= {
            "contract": promised,
            "kept": not broken,
            "broken": list(broken),
            "measured": {name: value for name, value in vars(measured).items() if value},
        }
    if samples is not None:
        certificate |= {"latency": samples.to_json(), "machine": host.cpu_model()}
    return Examined(agreement, samples, certificate, broken)


def _session(draft: Artifact) -> InferenceSession:
    if lacking := draft.lacking():
        raise InputError(
            f"this CPU lacks {', '.join(lacking)}, so the artifact can be neither verified nor "
            f"measured here; compile with --verify off and no contract, or for --target cpu"
        )
    return InferenceSession(draft, min(int(draft.target["threads"]), host.cores()))


def _brief(comparison: Comparison) -> dict[str, Any]:
    """The part of a comparison that a certificate states."""
    keys = ("output", "rtol", "atol", "max_abs", "cosine")
    described = comparison.describe()
    return {key: described[key] for key in keys}


def _compare(
    trial: Trial, terms: Terms, wanted: Sequence[Array], got: Sequence[Array]
) -> tuple[Comparison, ...]:
    if not terms.verify:
        return ()
    names = [spec.name for spec in trial.model.outputs]
    found = tuple(
        verify.compare(name, want, have, terms.rtol, terms.atol, terms.precision)
        for name, want, have in zip(names, wanted, got, strict=True)
    )
    verify.check(found)
    return found


def _stacked(samples: Sequence[Sequence[Array]]) -> tuple[Array, ...]:
    if len(samples) == 1:
        return tuple(samples[0])
    return tuple(np.stack(arrays) for arrays in zip(*samples, strict=True))


def _size(artifact: Artifact) -> int:
    """Bytes of the artifact's file, but for the few that the certificate will add."""
    with tempfile.TemporaryDirectory(prefix="hybridc-") as folder:
        path = Path(folder) / "model.hyb"
        artifact.save(path)
        return path.stat().st_size
