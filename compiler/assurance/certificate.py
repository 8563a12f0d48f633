"""The certificate: what was measured of an artifact, on what data and where, as JSON data."""

from collections.abc import Mapping, Sequence
from typing import Any

from hybridc.compiler.assurance import calibration, confidence
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.assurance.terms import Terms, Trial
from hybridc.compiler.assurance.verify import Comparison
from hybridc.compiler.hardware import host
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.runtime.session import InferenceSession


def written(
    trial: Trial,
    terms: Terms,
    agreement: Sequence[Comparison],
    measured: Measured,
    broken: Sequence[str],
) -> dict[str, Any]:
    """The certificate of an artifact that was not run, or of one before times are told."""
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


def run_on(session: InferenceSession | None, samples: Samples | None, timed: str) -> dict[str, Any]:
    """For the certificate: where the artifact ran, how long calls took, and on which sample."""
    found: dict[str, Any] = {} if session is None else {"machine": host.cpu_model()}
    if samples is None:
        return found
    return {**found, **({"timed_on": timed} if timed else {}), "latency": samples.to_json()}


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


def _counted(samples: int) -> str:
    return "1 sample" if samples == 1 else f"{samples} samples"


def _brief(comparison: Comparison) -> dict[str, Any]:
    """The part of a comparison that a certificate states."""
    keys = ("output", "rtol", "atol", "max_abs", "cosine")
    described = comparison.describe()
    return {key: described[key] for key in keys} | comparison.allowances
