"""What stages are expected to gain: the protocol, and a first answer by analysis.

A gain is the natural logarithm of a speed-up, so that gains of stages on top of each other add up.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from hybridc.compiler.stages import Stage


@dataclass(frozen=True)
class Gain:
    """The log of a speed-up that is expected, its standard deviation, and what says so."""

    mean: float
    sigma: float
    source: str = "analysis"

    @property
    def hope(self) -> float:
        """What it may well come to: one standard deviation above the mean."""
        return self.mean + self.sigma

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {"log_speedup": self.mean, "sigma": self.sigma, "source": self.source}


@dataclass(frozen=True)
class Kernel:
    """A kernel as far as a roofline needs it; `flops` and `traffic` (bytes) are of one call.

    `seconds` were measured of all its calls, None where nobody did.
    """

    flops: float
    traffic: float
    rule: str = ""
    calls: int = 1
    seconds: float | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a model once its first stage stands.

    `rates` are operations a second by precision, `bandwidth` bytes a second; `unknown` is the share
    of kernels for which no tuning log had a record; `latency` was measured, 0 where it was not;
    `precision` is what the model computes in as it comes.
    """

    kernels: tuple[Kernel, ...]
    rates: Mapping[str, float]
    bandwidth: float
    latency: float = 0.0
    unknown: float = 1.0
    machine: str = ""
    precision: str = "fp32"

    def features(self) -> tuple[float, ...]:
        """What models are told apart by: logarithms, of sizes that differ by orders."""
        flops = sum(kernel.flops * kernel.calls for kernel in self.kernels)
        traffic = sum(kernel.traffic * kernel.calls for kernel in self.kernels)
        convolutions = sum(k.flops * k.calls for k in self.kernels if "conv" in k.rule)
        return (
            math.log1p(flops),
            math.log1p(traffic),
            math.log1p(len(self.kernels)),
            4 * convolutions / flops if flops else 0.0,
        )

    def at_depth(self, depth: int) -> "Facts":
        """What an analysis of this depth sees: 1 the whole model, 2 each kernel, 3 its time too."""
        if depth >= 3:
            return self
        kernels = tuple(replace(kernel, seconds=None) for kernel in self.kernels)
        if depth == 2:
            return replace(self, kernels=kernels)
        flops = sum(kernel.flops * kernel.calls for kernel in kernels)
        traffic = sum(kernel.traffic * kernel.calls for kernel in kernels)
        return replace(self, kernels=(Kernel(flops, traffic),), unknown=1.0)


class Predictor(Protocol):
    """Expects gains of stages."""

    def predict(self, stage: Stage, facts: Facts) -> Gain:
        """What the stage is expected to gain on a model of these facts."""
        ...


# Bytes of an element beside fp32's four.
_WIDTHS: Mapping[str, float] = {"bf16": 0.5, "fp16": 0.5, "int8": 0.25, "int4": 0.125}
# Assumed until compilations teach better: tuning takes a fifth of the room between a kernel's time
# and its roofline, or 3 % off a model of which no kernel was timed.
_ROOM, _TUNED = 0.2, 0.03
# Assumed too, how far rooflines are off: of a model, of each kernel, of kernels that were timed.
_DOUBT = {1: 0.35, 2: 0.25, 3: 0.15}


@dataclass(frozen=True)
class Analysis:
    """Expects gains by rooflines; what it has no model of gets no gain, and great doubt.

    S. Williams, A. Waterman, D. Patterson: Roofline, CACM 52(4), 2009.
    """

    depth: int = 2

    def predict(self, stage: Stage, facts: Facts) -> Gain:
        """By the narrower type, or the room that is left for tuning."""
        seen = facts.at_depth(self.depth)
        precision = next((name for name in _WIDTHS if stage.name.startswith(name)), "")
        if precision:
            return Gain(_narrower(seen, precision), _DOUBT[self.depth])
        if stage.component == "neural":
            return _tuned(seen)
        if stage.component == "subgraph":
            return Gain(0.0, 0.02)
        return Gain(0.0, _DOUBT[1])


def _narrower(facts: Facts, precision: str) -> float:
    """The log-speedup of all kernels together, each by its roofline before and after."""
    before = after = 0.0
    for kernel in facts.kernels:
        now = _limit(facts, kernel, "fp32")
        then = _limit(facts, kernel, precision)
        weight = kernel.seconds / now if kernel.seconds and now else kernel.calls
        before += weight * now
        after += weight * then
    return math.log(before / after) if before and after else 0.0


def _limit(facts: Facts, kernel: Kernel, precision: str) -> float:
    rate = facts.rates.get(precision) or facts.rates.get("fp32") or math.inf
    moved = kernel.traffic * _WIDTHS.get(precision, 1.0)
    return max(kernel.flops / rate, moved / facts.bandwidth if facts.bandwidth else 0.0)


def _tuned(facts: Facts) -> Gain:
    timed = [kernel for kernel in facts.kernels if kernel.seconds]
    if timed:
        total = sum(kernel.seconds or 0.0 for kernel in timed)
        room = sum(
            max(0.0, (kernel.seconds or 0.0) - kernel.calls * _limit(facts, kernel, "fp32"))
            for kernel in timed
        )
        return Gain(-math.log(1 - _ROOM * facts.unknown * room / total), 0.05)
    mean = _TUNED * facts.unknown
    return Gain(mean, max(0.01, mean))


@dataclass(frozen=True)
class Experienced:
    """A predictor corrected by what stages gained in earlier compilations on this machine.

    What the analysis was off by is a Gaussian process over the features of models, whose prior
    deviation is the analysis's own doubt (C. Rasmussen, C. Williams: Gaussian Processes for Machine
    Learning, 2006, algorithm 2.1).
    """

    prior: Predictor
    past: Sequence["Past"] = field(default_factory=tuple["Past", ...])

    def predict(self, stage: Stage, facts: Facts) -> Gain:
        """The posterior; the prior where nothing like it was ever compiled."""
        expected = self.prior.predict(stage, facts)
        rows = [each for each in self.past if each.stage == stage.name]
        rows = [each for each in rows if each.machine == facts.machine][-_MOST:]
        if not rows or not expected.sigma:
            return expected
        return _posterior(expected, rows, facts.features())


@dataclass(frozen=True)
class Past:
    """What a stage gained once: `expected` by analysis, and `gained` when it was measured."""

    stage: str
    machine: str
    features: tuple[float, ...]
    expected: float
    gained: float
    seconds: float


_MOST = 300  # rows; the matrix of these is solved in milliseconds
_NOISE = 0.03  # of a measured log-speedup
_LENGTH = 2.0  # in features: models within a factor of e² in size are alike


def _posterior(expected: Gain, rows: Sequence[Past], features: tuple[float, ...]) -> Gain:
    import numpy as np

    known = np.array([each.features for each in rows])
    off = np.array([each.gained - each.expected for each in rows])

    def covariance(one: Any, other: Any) -> Any:
        squares = ((one[:, None, :] - other[None, :, :]) ** 2).sum(axis=2)
        return expected.sigma**2 * np.exp(-squares / (2 * _LENGTH**2))

    here = covariance(np.array([features]), known)[0]
    solved = np.linalg.solve(covariance(known, known) + _NOISE**2 * np.eye(len(rows)), here)
    variance = expected.sigma**2 - float(solved @ here)
    source = f"{expected.source} and {len(rows)} earlier compilations"
    return Gain(expected.mean + float(solved @ off), math.sqrt(max(variance, 1e-6)), source)
