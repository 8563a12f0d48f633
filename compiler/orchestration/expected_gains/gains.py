"""What stages and components are expected to gain, before any of them is tried.

A gain is the natural logarithm of a speed-up, with a standard deviation, so that gains of stages on
top of each other add up.  Expectations come from rooflines of the model's operators and from the
tuning log; what compilations on this machine gained corrects them (see `corrected`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from hybridc.compiler.anatomy.work import CONVOLUTION, OTHER, Operator
from hybridc.compiler.hardware.roofline import FULL, PRECISIONS, Roofs
from hybridc.compiler.orchestration.stages import Stage

_NORMAL = 1.96  # deviations to either side hold 95 %


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

    @property
    def bounds(self) -> tuple[float, float]:
        """The factors between which the speed-up lies with 95 %, if the deviation is right."""
        reach = _NORMAL * self.sigma
        return math.exp(self.mean - reach), math.exp(self.mean + reach)

    def text(self) -> str:
        """`1.42 times as fast (1.11 to 1.82)`: within one standard deviation."""
        factors = (math.exp(self.mean + each * self.sigma) for each in (0, -1, 1))
        return "{:.3g} times as fast ({:.3g} to {:.3g})".format(*factors)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {"log_speedup": self.mean, "sigma": self.sigma, "source": self.source}


@dataclass(frozen=True)
class Facts:
    """What is known of a model on a target.

    `tuned` is what a tuning log says of kernels there, None if it says nothing; `unknown` is the
    share of the model's kernels that it has no record of.  `kernels` are measured seconds of a call
    by FLOPs (see `operator_times`).  `latency` was measured, 0 where it was not; `code` are bytes
    of the artifact beside its weights, where its size was measured; `precision` is what the model
    computes in as it comes, `idle` are passes that find nothing in it, and the first candidate
    took so many `seconds` to make.
    """

    operators: tuple[Operator, ...]
    roofs: Roofs
    tuned: Gain | None = None
    kernels: Mapping[int, float] = field(default_factory=dict[int, float])
    latency: float = 0.0
    code: int = 0
    unknown: float = 1.0
    machine: str = ""
    precision: str = FULL
    idle: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def products(self) -> tuple[Operator, ...]:
        """The operators that lower precisions make faster."""
        return tuple(each for each in self.operators if each.product)

    def features(self) -> tuple[float, ...]:
        """What models are told apart by: logarithms, of sizes that differ by orders."""
        flops = sum(each.flops for each in self.operators)
        convolutions = sum(each.flops for each in self.operators if each.kind == CONVOLUTION)
        return (
            math.log1p(flops),
            math.log1p(sum(each.moved for each in self.operators)),
            math.log1p(len(self.products)),
            4 * convolutions / flops if flops else 0.0,
        )

    def at_depth(self, depth: int) -> "Facts":
        """What an analysis of this depth sees: 1 the whole model, 2 each operator, 3 times too."""
        if depth >= 3:
            return self
        if depth == 2:
            return replace(self, kernels={})
        whole = (_together(self.products), _together([o for o in self.operators if not o.product]))
        return replace(self, operators=tuple(filter(None, whole)), kernels={}, tuned=None)


def _together(found: Sequence[Operator]) -> Operator | None:
    """Operators as one that does all; those that multiply count as products."""
    if not found:
        return None
    return Operator(
        name="all",
        kind=found[0].kind if found[0].product else OTHER,
        flops=sum(each.flops for each in found),
        weights=sum(each.weights for each in found),
        data=sum(each.data for each in found),
        alone=sum(each.alone for each in found),
    )


class Predictor(Protocol):
    """Expects gains of stages."""

    def predict(self, stage: Stage, facts: Facts) -> Gain:
        """What the stage is expected to gain on a model of these facts."""
        ...


# How far rooflines are off, by depth.  Of six models in bf16 on a CPU with its instructions, the
# log-speedups were 0.09 below those of their operators' rooflines on average, with a deviation of
# 0.12: measured times take the first of these away.  Of a model as a whole, the doubt is assumed.
_DOUBT = {1: 0.35, 2: 0.15, 3: 0.12}
# Assumed until a log or compilations teach better: tuning takes a fifth of the room between a
# kernel's time and its roofline, or 3 % off a model of which no kernel was timed.
_ROOM, _TUNED = 0.2, 0.03
_SUBGRAPH = 0.02  # leaving a fusion out, which mostly pays, gains or loses as much


@dataclass(frozen=True)
class Analysis:
    """Expects gains by rooflines; what it has no model of gets no gain, and great doubt.

    S. Williams, A. Waterman, D. Patterson: Roofline, CACM 52(4), 2009.
    """

    depth: int = 2

    def predict(self, stage: Stage, facts: Facts) -> Gain:
        """By the narrower type, or the room that is left for tuning."""
        seen = facts.at_depth(self.depth)
        if stage.name in PRECISIONS:
            return self.lowered(stage.name, seen)
        if stage.component == "neural":
            return _tuned(seen)
        if stage.component == "subgraph":
            return Gain(0.0, _SUBGRAPH)
        return Gain(0.0, _DOUBT[1])

    def lowered(self, precision: str, facts: Facts) -> Gain:
        """All operators, each by its roofline before and after."""
        roofs, before, after = facts.roofs, 0.0, 0.0
        weights = sum(each.weights for each in facts.operators)
        for each in facts.operators:
            now = roofs.seconds(each, weights)
            weight = _slower(facts, each, now)
            before += weight * now
            after += weight * roofs.seconds(each, weights, precision)
        lacks = PRECISIONS[precision].multiplied in roofs.lacking
        told = "roofline; the target multiplies it no faster" if lacks else "roofline"
        return Gain(math.log(before / after) if after else 0.0, _DOUBT[self.depth], told)


def _slower(facts: Facts, each: Operator, limit: float) -> float:
    """How many times as long as its roofline an operator takes, 1 where nobody timed it."""
    seconds = facts.kernels.get(int(each.flops)) if each.product else None
    return seconds / limit if seconds and limit else 1.0


def _tuned(facts: Facts) -> Gain:
    weights = sum(each.weights for each in facts.operators)
    pairs = [
        (seconds, facts.roofs.seconds(each, weights))
        for each in facts.products
        if (seconds := facts.kernels.get(int(each.flops)))
    ]
    if facts.tuned is not None:
        known = facts.tuned
        return Gain(known.mean * facts.unknown, known.sigma, known.source)
    if pairs:
        total = sum(seconds for seconds, _ in pairs)
        room = sum(max(0.0, seconds - limit) for seconds, limit in pairs)
        return Gain(-math.log(1 - _ROOM * facts.unknown * room / total), 0.05, "measured kernels")
    mean = _TUNED * facts.unknown
    return Gain(mean, max(0.01, mean))
