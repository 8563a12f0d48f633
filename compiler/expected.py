"""What components are expected to gain, before any of them is tried.

A gain is the natural logarithm of a speed-up, with a standard deviation, so that gains add up.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from hybridc.compiler.errors import LogError
from hybridc.compiler.log import access
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.operators import Operator
from hybridc.compiler.roofline import FULL, Roofs
from hybridc.compiler.target import Target

# How far rooflines are off: of six models in bf16 on a CPU with its instructions, the log-speedups
# were 0.09 below those of the roofline on average, with a deviation of 0.12.
_DOUBT = 0.15
_FEW = 3  # kernels in a log, from which on their gains say something of others
_NORMAL = 1.96  # deviations to either side hold 95 %


@dataclass(frozen=True)
class Expected:
    """What a component is expected to gain over what stands without it; None: nobody can say.

    `mean` and `sigma` are of the log-speedup; `source` says where they come from.
    """

    component: str
    mean: float | None
    sigma: float
    source: str

    @property
    def speedup(self) -> float | None:
        """The factor that is expected."""
        return None if self.mean is None else math.exp(self.mean)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The factors between which it lies with 95 %, if the deviation is right."""
        if self.mean is None:
            return None
        reach = _NORMAL * self.sigma
        return math.exp(self.mean - reach), math.exp(self.mean + reach)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        bounds = self.bounds
        return {
            "component": self.component,
            "speedup": self.speedup,
            "low": bounds[0] if bounds else None,
            "high": bounds[1] if bounds else None,
            "log_speedup": self.mean,
            "sigma": self.sigma,
            "source": self.source,
        }


def seconds(
    found: Sequence[Operator], roofs: Roofs, precision: str = FULL, *, fused: bool = True
) -> float:
    """The least time of all operators, one after another."""
    weights = sum(each.weights for each in found)
    return sum(roofs.seconds(each, weights, precision, fused=fused) for each in found)


def by_roofline(found: Sequence[Operator], roofs: Roofs) -> list[Expected]:
    """Fusion and the lower precisions; a target without their instructions only moves less."""
    full = seconds(found, roofs)
    if not full:
        return []
    alone = math.log(seconds(found, roofs, fused=False) / full)
    made = [Expected("exact", alone, alone / 2, "roofline: operators fused, beside each alone")]
    for precision in roofs.rates:
        if precision == FULL:
            continue
        gain = math.log(full / seconds(found, roofs, precision))
        lacks = "; the CPU has no instructions for it" if precision in roofs.lacking else ""
        made.append(Expected(precision, gain, _DOUBT, f"roofline{lacks}"))
    return made


def by_log(found: Sequence[Operator], target: Target, url: str | None = None) -> Expected:
    """Tuning, from what it gained on the kernels that a log knows of this target.

    The mean over so many kernels as matter in the model is predicted: their gains are taken to be
    drawn from those of the log.  Raises LogError where a log that is named cannot be read.
    """
    if url is None and not access.default_exists():
        return Expected("tuned", None, 0.0, "there is no tuning log")
    from hybridc.compiler.log import keys

    try:
        with access.open_log(url, readonly=True) as log:
            gains = _gains(log.records(target=keys.of_target(target).key))
    except LogError as error:
        if url is not None:
            raise
        return Expected("tuned", None, 0.0, str(error))
    if len(gains) < _FEW:
        told = f"the tuning log knows {len(gains)} tuned kernels of this target, {_FEW} are needed"
        return Expected("tuned", None, 0.0, told)
    spread = stdev(gains) * math.sqrt(1 / _distinct(found) + 1 / len(gains))
    return Expected("tuned", fmean(gains), spread, f"{len(gains)} kernels of the tuning log")


def _gains(records: Iterable[Record]) -> list[float]:
    """The log-speedup of each kernel's best point over the first, which a tuner makes the default.

    Kernels of which one point was measured were not tuned.
    """
    series: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for record in records:
        if record.verdict is Verdict.OK:
            key = (record.workload, record.toolchain, record.mode)
            choice = f"{record.rule} {sorted(record.point.items())} {record.trace}"
            series.setdefault(key, {}).setdefault(choice, []).extend(record.seconds)
    times = [[median(samples) for samples in points.values()] for points in series.values()]
    return [math.log(each[0] / min(each)) for each in times if len(each) > 1]


def _distinct(found: Sequence[Operator]) -> float:
    """How many operators matter: the inverse of the sum of their squared shares of the FLOPs."""
    total = sum(each.flops for each in found)
    return 1 / sum((each.flops / total) ** 2 for each in found) if total else 1.0
