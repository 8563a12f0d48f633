"""What the user demands of a compiled model, and whether what was measured keeps it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.units import format_duration, format_size, parse_duration, parse_size
from hybridc.compiler.verify import METRICS


@dataclass(frozen=True)
class Measured:
    """What was measured of a candidate; None is what was not.

    `latency` is the median of one call in seconds, `throughput` calls per second, `size` that of
    the artifact in bytes, `accuracy` the value of each metric against the reference.
    """

    latency: float | None = None
    throughput: float | None = None
    size: int | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, init=False)
class Contract:
    """Limits that hold, each of them, or compiling fails; None does not limit.

    `max_latency` in seconds, `min_throughput` in calls per second, `max_size` of the artifact in
    bytes, `min_accuracy` by metric (cosine, snr in decibels, top1; max-abs, of which less is
    better).
    """

    max_latency: float | None
    min_throughput: float | None
    max_size: int | None
    min_accuracy: Mapping[str, float]

    def __init__(
        self,
        max_latency: str | float | None = None,
        min_throughput: float | None = None,
        max_size: str | int | None = None,
        min_accuracy: Mapping[str, float] | None = None,
    ) -> None:
        """Take durations and sizes as numbers or as text: `5ms`, `10MB`.

        Raises InputError where a limit is not understood, not positive, or of no known metric.
        """
        latency = parse_duration(max_latency) if isinstance(max_latency, str) else max_latency
        size = parse_size(max_size) if isinstance(max_size, str) else max_size
        limits = {"max_latency": latency, "min_throughput": min_throughput, "max_size": size}
        for name, value in limits.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be positive, got {value}")
            object.__setattr__(self, name, value)
        accuracy = {name: _limit(name, value) for name, value in (min_accuracy or {}).items()}
        object.__setattr__(self, "min_accuracy", accuracy)

    def judge(self, measured: Measured) -> list[str]:
        """One sentence for each limit that does not hold, with the wanted and measured value."""
        clauses = [
            _clause("latency", self.max_latency, measured.latency, False, format_duration),
            _clause("throughput", self.min_throughput, measured.throughput, True, _per_second),
            _clause("artifact size", self.max_size, measured.size, False, format_size),
        ]
        clauses += [
            _clause(f"accuracy {name}", limit, measured.accuracy.get(name), METRICS[name].higher)
            for name, limit in sorted(self.min_accuracy.items())
        ]
        return [clause for clause in clauses if clause is not None]

    def describe(self) -> dict[str, Any]:
        """The limits that are set, as JSON data."""
        return {name: value for name, value in asdict(self).items() if value}


def parse_accuracy(texts: Iterable[str]) -> dict[str, float]:
    """Read `cosine=0.999` and the like, each metric once."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if name in found:
            raise InputError(f"accuracy metric {name!r} is limited twice")
        found[name] = _limit(name, value)
    return found


def _limit(metric: str, given: str | float) -> float:
    """A limit for a metric, which must lie where the metric can."""
    if metric not in METRICS:
        raise InputError(f"no accuracy metric is named {metric!r}; {hint(metric, METRICS)}")
    kind = METRICS[metric]
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not kind.low <= value <= kind.high:
        reach = f"from {kind.low:g} to {kind.high:g}"
        raise InputError(f"accuracy {metric} is a number {reach}, got {given!r}")
    return value


def _clause(
    name: str,
    limit: float | None,
    value: float | None,
    higher: bool,
    show: Callable[[float], str] = "{:.6g}".format,
) -> str | None:
    """Say how a limit does not hold; None where it does.  A NaN keeps no limit."""
    if limit is None:
        return None
    wanted = f"{name}: wanted at {'least' if higher else 'most'} {show(limit)}"
    if value is None:
        return f"{wanted}, not measured"
    kept = value >= limit if higher else value <= limit
    return None if kept else f"{wanted}, measured {show(value)}"


def _per_second(value: float) -> str:
    return f"{value:.4g} calls/s"
