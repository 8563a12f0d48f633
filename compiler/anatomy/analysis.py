"""What a model is made of, where its time should go, and what components may gain on it.

Nothing is lowered, scheduled or run: a model of a thousand operators takes about a second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.anatomy.architecture import Architecture, architecture
from hybridc.compiler.anatomy.operators import operators, weights
from hybridc.compiler.anatomy.work import Operator
from hybridc.compiler.hardware import roofline
from hybridc.compiler.hardware.roofline import FULL, PRECISIONS, Roofs
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.orchestration import precisions
from hybridc.compiler.orchestration.expected_gains import from_log, gains
from hybridc.compiler.orchestration.expected_gains.gains import Facts, Gain
from hybridc.compiler.target import Target


@dataclass(frozen=True)
class Share:
    """All operators of one name: their number, and their shares of FLOPs, bytes and time."""

    operator: str
    count: int
    flops: float
    bytes: float
    time: float

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return dict(vars(self))


@dataclass(frozen=True)
class Expected:
    """What a component is expected to gain over what stands without it; or why nobody can say."""

    component: str
    gain: Gain | str

    def to_json(self) -> dict[str, Any]:
        """As JSON data; numbers are None if nobody can say."""
        if isinstance(self.gain, str):
            numbers = ("speedup", "low", "high", "log_speedup", "sigma")
            return {"component": self.component, **dict.fromkeys(numbers), "source": self.gain}
        low, high = self.gain.bounds
        speedup = math.exp(self.gain.mean)
        fields = {"component": self.component, "speedup": speedup, "low": low, "high": high}
        return {**fields, **self.gain.to_json()}


@dataclass(frozen=True)
class Analysis:
    """A model by its operators.

    `weights` are the elements of learnt constants in the forms that operators read, and
    `weight_bytes` their bytes: a table that is a projection too, transposed, counts in both forms,
    of which the model's file holds one.  `traffic` are bytes that a call moves at least, with
    element-wise operators fused; `seconds` is the sum of the operators' rooflines.
    """

    architecture: Architecture
    weights: int
    weight_bytes: int
    flops: float
    traffic: float
    seconds: float
    roofs: Roofs
    shares: tuple[Share, ...]
    expected: tuple[Expected, ...]

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.traffic if self.traffic else 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON data: seconds, bytes, and shares between 0 and 1."""
        return {
            "architecture": self.architecture.kind,
            "reasons": list(self.architecture.reasons),
            "weights": self.weights,
            "weight_bytes": self.weight_bytes,
            "flops": self.flops,
            "bytes": self.traffic,
            "intensity": self.intensity,
            "balance": self.roofs.balance,
            "bound_by": "arithmetic" if self.intensity > self.roofs.balance else "memory",
            "roofline_s": self.seconds,
            "roofs": self.roofs.source,
            "operators": [share.to_json() for share in self.shares],
            "expected": [each.to_json() for each in self.expected],
        }


def analyse(module: IRModule, target: Target, log: str | None = None) -> Analysis:
    """Analyse a module as a frontend imports it, before any pass.

    `log` is the path or URL of a tuning log, the default one if there is none named.
    Raises LogError if a log that is named cannot be read.
    """
    found, roofs = operators(module), roofline.roofs(target)
    count, size = weights(module)
    tuned = from_log.by_log(found, target, log)
    return Analysis(
        architecture=architecture(module, found),
        weights=count,
        weight_bytes=size,
        flops=sum(each.flops for each in found),
        traffic=sum(each.moved for each in found),
        seconds=roofs.total(found),
        roofs=roofs,
        shares=_shares(found, roofs),
        expected=(*_by_roofline(found, roofs, target.kind), Expected("tuned", tuned)),
    )


def _by_roofline(found: Sequence[Operator], roofs: Roofs, device: str) -> list[Expected]:
    """Fusion and the lower precisions; a target without their instructions only moves less."""
    full = roofs.total(found)
    if not full:
        return []
    alone = math.log(roofs.total(found, fused=False) / full)
    fused = Gain(alone, alone / 2, "roofline: operators fused, beside each alone")
    facts, predictor = Facts(tuple(found), roofs), gains.Analysis()
    known = [p for p in PRECISIONS if p != FULL and p in precisions.of_device(device)]
    lower = [Expected(p, predictor.lowered(p, facts)) for p in known]
    return [Expected("exact", fused), *lower]


def _shares(found: Sequence[Operator], roofs: Roofs) -> tuple[Share, ...]:
    """By name, those that should take most of the time first."""
    weights = sum(each.weights for each in found)
    sums: dict[str, list[float]] = {}
    for each in found:
        row = sums.setdefault(each.name, [0, 0.0, 0.0, 0.0])
        seconds = roofs.seconds(each, weights, FULL)
        for index, value in enumerate((1, each.flops, each.moved, seconds)):
            row[index] += value
    totals = [sum(row[index] for row in sums.values()) or 1.0 for index in range(4)]
    shares = [
        Share(name, int(row[0]), *(row[index] / totals[index] for index in (1, 2, 3)))
        for name, row in sums.items()
    ]
    return tuple(sorted(shares, key=lambda share: -share.time))
