"""Read back measurements from the JSON data that `Measured.to_json` made of them."""

from collections.abc import Mapping
from typing import Any

from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Measured

# What is raised where data are not of that form.
UNKNOWN = (ArithmeticError, AttributeError, KeyError, TypeError, ValueError)


def measured(told: Mapping[str, Any]) -> Measured:
    """What `told` says.  Raises one of UNKNOWN if nothing."""
    return Measured(
        latency=_estimate(told.get("latency")),
        throughput=_estimate(told.get("throughput")),
        memory=_bytes(told.get("memory")),
        size=_bytes(told.get("size")),
        accuracy=_estimates(told.get("accuracy")),
        drop=_estimates(told.get("drop")),
        disturbed=str(told.get("disturbed", "")),
    )


def _bytes(told: Any) -> int | None:
    return None if told is None else int(told)


def _estimates(told: Mapping[str, Any] | None) -> dict[str, Estimate]:
    found = {name: _estimate(each) for name, each in (told or {}).items()}
    return {name: each for name, each in found.items() if each is not None}


def _estimate(told: Mapping[str, Any] | None) -> Estimate | None:
    return None if told is None else Estimate.of_json(told)
