"""The limits that a user sets for a compiled model, and whether the measurements keep them.

A limit is kept only if the confidence bound of the estimate (see `confidence`) clears it: a
measurement slightly below a limit, but too imprecise to tell, does not count as below.
"""

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from hybridc.compiler.assurance import validation
from hybridc.compiler.assurance.accuracy import METRICS
from hybridc.compiler.assurance.clause import Clause
from hybridc.compiler.assurance.confidence import FEW, Estimate
from hybridc.compiler.assurance.limits import MEDIAN, checked_percentile, parse_latency
from hybridc.compiler.assurance.validation import Validate
from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.text.units import (
    format_duration,
    format_rate,
    format_size,
    of_option,
    parse_size,
)

# The metric that is the user's own function, by `--validate`.
VALIDATE = "validate"
SIZE = "artifact size"


@dataclass(frozen=True)
class Measured:
    """What was measured of a candidate; None is what was not.

    `latency` is the contract's percentile of one call in seconds, `throughput` calls per second,
    `memory` what a call holds at its peak and `size` that of the artifact, both in bytes.
    `accuracy` has the value of each metric against the reference, `drop` how much lower the user's
    own figure is than the reference's.  `disturbed` is what kept the machine from the calls that
    were timed (see `Samples.disturbed`).
    """

    latency: Estimate | None = None
    throughput: Estimate | None = None
    memory: int | None = None
    size: int | None = None
    accuracy: Mapping[str, Estimate] = field(default_factory=dict[str, Estimate])
    drop: Mapping[str, Estimate] = field(default_factory=dict[str, Estimate])
    disturbed: str = ""

    def to_json(self) -> dict[str, Any]:
        """What was measured, as JSON data."""
        return {name: _plain(value) for name, value in vars(self).items() if value}


@dataclass(frozen=True, init=False)
class Contract:
    """Limits that must all hold, or compiling fails; None is no limit.

    `max_latency` is in seconds, for the median or another `latency_percentile`; `min_throughput` in
    calls per second; `max_memory` (peak of a call) and `max_size` (of the artifact) in bytes.
    `min_accuracy` is by metric: `cosine`, `snr` in decibels, `top1`; `max-abs` and `max-rel`, where
    less is better; and `validate`, or the function's name, for the user's own metric, where higher
    is better.  `max_drop` limits how much lower that metric may be than the reference's.
    """

    max_latency: float | None
    latency_percentile: float
    min_throughput: float | None
    max_memory: int | None
    max_size: int | None
    min_accuracy: Mapping[str, float]
    max_drop: Mapping[str, float]
    validate: Validate | None = field(compare=False)

    def __init__(  # noqa: PLR0913, PLR0917 - the limits that there are
        self,
        max_latency: str | float | None = None,
        min_throughput: float | None = None,
        max_size: str | int | None = None,
        min_accuracy: Mapping[str, float] | None = None,
        max_memory: str | int | None = None,
        max_drop: Mapping[str, float] | None = None,
        validate: Validate | str | None = None,
        latency_percentile: float = MEDIAN,
    ) -> None:
        """Take durations and sizes as numbers or as text: `5ms`, `p99<=8ms`, `10MB`.

        `validate` is a function, or its place as `package.module:name`.  It takes an object with
        the `run` of an `InferenceSession`, and returns a number.

        Raises InputError if a limit is malformed or not positive, or its metric is unknown.
        """
        with of_option("max_latency"):
            if isinstance(max_latency, str):
                latency_percentile, max_latency = parse_latency(max_latency, latency_percentile)
        limits = {
            "max_latency": max_latency,
            "min_throughput": min_throughput,
            "max_memory": _bytes("max_memory", max_memory),
            "max_size": _bytes("max_size", max_size),
        }
        for name, value in limits.items():
            if value is not None and not (_is_number(value) and math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be positive, got {value}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "latency_percentile", checked_percentile(latency_percentile))
        own = validation.load(validate) if isinstance(validate, str) else validate
        if own is not None and not callable(own):
            raise InputError(f"validate is a function or package.module:function, got {own!r:.60}")
        object.__setattr__(self, "validate", own)
        object.__setattr__(self, "min_accuracy", _accuracies(min_accuracy or {}, own))
        object.__setattr__(self, "max_drop", _drops(max_drop or {}, own))

    @property
    def latency_name(self) -> str:
        """`latency`, or `p99 latency` where the limit is not on the median."""
        if self.latency_percentile == MEDIAN:
            return "latency"
        return f"p{self.latency_percentile:g} latency"

    @property
    def limited(self) -> list[str]:
        """The metrics of which accuracy or its drop is limited."""
        return [*self.min_accuracy, *self.max_drop]

    @property
    def timed(self) -> bool:
        """Whether a limit needs a clock."""
        return self.max_latency is not None or self.min_throughput is not None

    def costs(self, measured: Measured) -> list[Clause]:
        """The limits on time, memory and size that are set, with what was measured."""
        memory, size = _counted(measured.memory), _counted(measured.size)
        longest, least = self.max_latency, self.min_throughput
        latency, throughput, disturbed = measured.latency, measured.throughput, measured.disturbed
        found = [
            Clause(self.latency_name, longest, latency, False, format_duration, disturbed),
            Clause("throughput", least, throughput, True, format_rate, disturbed),
            Clause("peak memory", self.max_memory, memory, False, format_size),
            Clause(SIZE, self.max_size, size, False, format_size),
        ]
        return [clause for clause in found if clause.limit is not None]

    def accuracies(self, measured: Measured) -> list[Clause]:
        """The limits on accuracy, with what was measured."""
        found = [
            _accuracy_clause(name, limit, measured.accuracy.get(name))
            for name, limit in sorted(self.min_accuracy.items())
        ]
        found += [
            Clause(f"drop of {name}", limit, measured.drop.get(name), False)
            for name, limit in sorted(self.max_drop.items())
        ]
        return found

    def clauses(self, measured: Measured) -> list[Clause]:
        """Each limit that is set, with what was measured."""
        return [*self.costs(measured), *self.accuracies(measured)]

    def judge(self, measured: Measured) -> list[str]:
        """One sentence for each limit that does not hold, with the wanted and measured value."""
        return [clause.text() for clause in self.clauses(measured) if not clause.kept]

    def judge_accuracy(self, measured: Measured) -> list[str]:
        """The sentences of `judge` on accuracy."""
        return [clause.text() for clause in self.accuracies(measured) if not clause.kept]

    def told(self, measured: Measured) -> str:
        """`latency 4.2 ms of 5 ms, accuracy cosine 0.9993 of 0.999`; the user's own number too.

        Empty where nothing is limited or asked for.
        """
        found = [
            f"{each.name} {each.show(each.found.value)} of {each.show(each.limit)}"
            for each in self.clauses(measured)
            if each.found is not None and each.limit is not None
        ]
        own = measured.accuracy.get(VALIDATE)
        if self.validate is not None and own is not None and VALIDATE not in self.min_accuracy:
            found.append(f"{validation.name_of(self.validate)} {own.value:.6g}")
        return ", ".join(found)

    def describe(self) -> dict[str, Any]:
        """The limits that are set, as JSON data."""
        described = {name: value for name, value in vars(self).items() if value}
        if self.validate is not None:
            described["validate"] = validation.name_of(self.validate)
        if self.max_latency is None or self.latency_percentile == MEDIAN:
            del described["latency_percentile"]
        return described


def fewest_samples(accuracies: Iterable[str]) -> int:
    """How many samples to draw where these are limited: one metric of outputs takes several."""
    return FEW if any(name != VALIDATE for name in accuracies) else 1


def _accuracies(limits: Mapping[str, float], own: Validate | None) -> dict[str, float]:
    """The limits, with the user's function under one name; each lies where its metric can."""
    found: dict[str, float] = {}
    for name, value in _mapping("min_accuracy", limits, "cosine"):
        if _is_own(name, own):
            _once(found)
            found[VALIDATE] = _checked(f"accuracy {name}", value, -math.inf, math.inf)
        elif name in METRICS:
            metric = METRICS[name]
            found[name] = _checked(f"accuracy {name}", value, metric.low, metric.high)
        elif name == VALIDATE:
            raise InputError("accuracy validate needs a function: --validate package.module:name")
        else:
            names = [*METRICS, *_names_of(own)]
            raise InputError(f"no accuracy metric is named {name!r}; {hint(name, names)}")
    return found


def _drops(limits: Mapping[str, float], own: Validate | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in _mapping("max_drop", limits, VALIDATE):
        if own is None:
            raise InputError("max_drop needs a function: --validate package.module:name")
        if not _is_own(name, own):
            raise InputError(f"max_drop cannot limit {name!r}; {hint(name, _names_of(own))}")
        _once(found)
        found[VALIDATE] = _checked(f"drop of {name}", value, 0.0, math.inf)
    return found


def _bytes(name: str, limit: str | int | None) -> int | None:
    with of_option(name):
        return parse_size(limit) if isinstance(limit, str) else limit


def _once(found: Mapping[str, float]) -> None:
    """Raise InputError where the user's function is limited under both of its names."""
    if VALIDATE in found:
        raise InputError(f"{VALIDATE} and the function's own name are one figure, limited twice")


def _mapping(what: str, limits: Any, example: str) -> Iterable[tuple[str, float]]:
    if not isinstance(limits, Mapping):
        wanted = f'limits by metric, such as {{"{example}": 0.999}}'
        raise InputError(f"{what} must be {wanted}, got {limits!r:.60}")
    return cast("Mapping[str, float]", limits).items()


def _is_number(value: Any) -> bool:
    """Whether a float is what a value may be taken for; a truth is no number here."""
    return not isinstance(value, bool) and isinstance(value, numbers.Real)


def _names_of(own: Validate | None) -> tuple[str, ...]:
    """What the user's function may be called in a contract."""
    return (VALIDATE,) if own is None else (VALIDATE, validation.name_of(own))


def _is_own(name: str, own: Validate | None) -> bool:
    return own is not None and name in _names_of(own)


def _checked(name: str, value: float, low: float, high: float) -> float:
    if not (_is_number(value) and low <= value <= high and math.isfinite(value)):
        raise InputError(f"{name} is a number {_range(low, high)}, got {value}")
    return value


def _range(low: float, high: float) -> str:
    if math.isfinite(high):
        return f"from {low:g} to {high:g}"
    return f"from {low:g} on" if math.isfinite(low) else "that is finite"


def _counted(value: int | None) -> Estimate | None:
    return None if value is None else Estimate.exactly(value)


def _accuracy_clause(name: str, limit: float, found: Estimate | None) -> Clause:
    higher = name == VALIDATE or METRICS[name].higher
    best = math.inf if name == VALIDATE else METRICS[name].high
    if found is not None and higher and limit == best:
        # No number of samples proves perfection: it is asked of those that were given.
        found = Estimate.exactly(found.value)
    return Clause(f"accuracy {name}", limit, found, higher)


def _plain(value: Any) -> Any:
    match value:
        case Estimate():
            return value.to_json()
        case Mapping():
            return {name: _plain(each) for name, each in value.items()}
        case _:
            return value
