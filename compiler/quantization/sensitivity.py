"""How much error each operator adds when it alone is computed in less precision.

The pass that lowers an operator tells its error by itself, on samples of what it multiplies.  For
the worst of them it is measured on the model's output too: one build of the model in which every
product has a switch between both precisions, so that each can be tried alone, or any set of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hybridc.compiler.errors import HybridcError, WrongAnswerError
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.model import Array, Feed, TensorSpec
from hybridc.compiler.target import Target

# Operators whose error is measured on the output, and samples that it is measured on: in small
# models, whose few outputs tell little each, as many as take this many multiply-adds in all.
_WORST, _LEAST, _MOST, _MACS = 32, 4, 64, 2**39
# Weights of a model with switches, which has them twice, in elements: 1 GiB.
_LARGEST = 2**27
# Standard errors that an effect lies above its mean: a bound at 95 % and some.
_ERRORS = 2.0

# Bytes that one lane of such an instruction multiplies.
_LANE = 4


@dataclass(frozen=True)
class Operator:
    """A product that a pass may lower.

    `error` is the energy of what 8 bits change in its output, as a share of that output's;
    `effect` the same on the model's output where that was measured, else None: two standard errors
    above the mean over samples, as a contract is kept beyond doubt only.  `lowered` tells
    whether it is computed in 8 bits.  `depth` counts the numbers of one place that each output adds
    up, `moved` the bytes of operands and result in fp32.
    """

    name: str
    described: str
    macs: int
    depth: int
    weights: int
    moved: int
    error: float
    lowered: bool
    effect: float | None = None

    @property
    def counts(self) -> float:
        """The error that decides: on the output, or of its own."""
        return self.error if self.effect is None else self.effect

    def to_json(self) -> dict[str, Any]:
        """What a report tells of it."""
        return {
            "name": self.name,
            "operator": self.described,
            "precision": "int8" if self.lowered else "as it was",
            "error": self.error,
            "effect": self.effect,
        }


def _at_leisure() -> None:
    """Take any time."""


@dataclass(frozen=True)
class Lowered:
    """What a pass lowered, and what it takes to find how sensitive the model is to that.

    `switched` makes the module with one more parameter, a number for each operator: 1 where it is
    lowered, 0 where not.  `feeds` are inputs in the order of the other parameters, those of the
    calibration, and `tried` are those that the model is verified on.  `effects` are those that were
    measured before, by the operators' places: with other operators lowered, they are the same.
    `check` raises OutOfTimeError if there is no time to measure more.
    """

    operators: tuple[Operator, ...]
    switched: Callable[[], IRModule] = field(repr=False)
    feeds: Sequence[Sequence[Array]] = field(repr=False)
    effects: dict[int, float] = field(default_factory=dict[int, float], repr=False)
    tried: Sequence[Sequence[Array]] = field(default=(), repr=False)
    check: Callable[[], None] = field(default=_at_leisure, repr=False)

    def on(
        self,
        feeds: Sequence[Feed],
        inputs: Sequence[TensorSpec],
        check: Callable[[], None] = _at_leisure,
    ) -> "Lowered":
        """The same, verified on these feeds, as long as a `check` lets it."""
        tried = [[feed[spec.name] for spec in inputs] for feed in feeds]
        return replace(self, tried=tried, check=check)


class ImpreciseError(WrongAnswerError):
    """An answer is beyond its tolerance by what a pass lowered, which `lowered` tells."""

    def __init__(self, message: str, lowered: Lowered) -> None:
        super().__init__(message)
        self.lowered = lowered


def measured(lowered: Lowered) -> tuple[Operator, ...]:
    """The operators with their effects on the model's output.

    Those of the worst ones are measured.  On average an effect is some share of an operator's own
    error; by that share the others are estimated, and it is the least that any has: what few
    samples do not show, rare ones among others may, since own errors are of all calibration data.
    Where the model is too large for that, does not compile with switches, or time ends before,
    operators are as they were.
    """
    operators = lowered.operators
    if sum(each.weights for each in operators) > _LARGEST:
        return operators
    effects = lowered.effects
    try:
        effects.update(effects or _effects(lowered))
    except HybridcError:
        return operators
    own = sum(operators[index].error for index in effects)
    share = sum(effects.values()) / own if own else 0.0
    return tuple(
        replace(each, effect=max(effects.get(index, 0.0), share * each.error))
        for index, each in enumerate(operators)
    )


def _effects(lowered: Lowered) -> Mapping[int, float]:
    """Of the operators with the largest own errors, on calibration data.

    Beyond the range that calibration saw, an operator saturates: what that costs is seen on other
    data alone, where it is largest on some samples.  So effects are also measured on the samples
    of verification that lose most, and the larger counts.
    """
    lowered.check()
    module = lowered.switched()
    from hybridc.compiler.quantization.taps import Taps  # imports TVM, which takes its time

    run, count = Taps(module, outputs(module)), len(lowered.operators)
    order = sorted(range(count), key=lambda i: -lowered.operators[i].error)
    tried = _Tried(run, count, lowered.check)
    samples = _samples(lowered)
    found = tried.effects(order[:_WORST], lowered.feeds[:samples])
    if not lowered.tried:
        return found
    worst = sorted(lowered.tried[:_MOST], key=lambda feed: -tried.loss(range(count), feed))
    saturated = sorted(order[_WORST:], key=lambda i: -tried.loss([i], worst[0]))
    found |= tried.effects(saturated[: _WORST // 4], lowered.feeds[:samples])
    there = tried.effects(list(found), worst[: max(1, samples // 4)])
    return {index: max(effect, there[index]) for index, effect in found.items()}


@dataclass(frozen=True)
class _Tried:
    """A model with a switch for each of `count` operators, run with some of them on."""

    run: Callable[[Sequence[Array]], Sequence[Array]]
    count: int
    check: Callable[[], None] = _at_leisure

    def loss(self, on: Sequence[int], feed: Sequence[Array]) -> float:
        """The share of the output's energy that these operators cost in 8 bits."""
        exact = self.run([*feed, self._only([])])
        return self._noise(on, feed, exact) / max(_energy(exact), 1e-300)

    def effects(self, indices: Sequence[int], feeds: Sequence[Sequence[Array]]) -> dict[int, float]:
        """That of each operator alone, over all samples (see `beyond_doubt`)."""
        energies: list[float] = []
        noises: dict[int, list[float]] = {index: [] for index in indices}
        for feed in feeds:
            exact = self.run([*feed, self._only([])])
            energies.append(_energy(exact))
            for index, noise in noises.items():
                noise.append(self._noise([index], feed, exact))
        return {index: beyond_doubt(noise, energies) for index, noise in noises.items()}

    def _noise(self, on: Sequence[int], feed: Sequence[Array], exact: Sequence[Array]) -> float:
        self.check()
        changed = self.run([*feed, self._only(on)])
        pairs = zip(changed, exact, strict=True)
        return _energy([np.subtract(a, b, dtype=np.float64) for a, b in pairs])

    def _only(self, on: Sequence[int]) -> Array:
        switches = np.zeros(self.count, np.float32)
        switches[list(on)] = 1.0
        return switches


def beyond_doubt(noises: Sequence[float], energies: Sequence[float]) -> float:
    """The ratio of two sums over samples, and two standard errors.

    Few samples with most of the noise widen the bounds of what is measured more than their mean
    says.  The error is that of a ratio estimator (W. Cochran, Sampling Techniques, 1977, 6.4).
    """
    noise, energy = np.asarray(noises, np.float64), np.asarray(energies, np.float64)
    total = max(float(energy.sum()), 1e-300)
    ratio = float(noise.sum()) / total
    count = len(noise)
    if count < 2:
        return ratio
    apart = float(np.square(noise - ratio * energy).sum()) * count / (count - 1)
    return ratio + _ERRORS * math.sqrt(apart) / total


def _samples(lowered: Lowered) -> int:
    runs = 1 + min(_WORST, len(lowered.operators))
    macs = sum(each.macs for each in lowered.operators) * runs
    return min(_MOST, max(_LEAST, _MACS // max(macs, 1)))


def outputs(module: IRModule) -> list[Any]:
    """The variables of `main` that are its outputs of floating point."""
    from hybridc.compiler.ir.rewrite import graph_of

    body = module["main"].body.body
    value = graph_of(module["main"]).value(body)
    outputs = list(value.fields) if hasattr(value, "fields") else [body]
    return [each for each in outputs if str(each.ty.dtype).startswith("float")]


def _energy(arrays: Sequence[Array]) -> float:
    return sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays)


def seconds(operator: Operator, target: Target) -> tuple[float, float]:
    """How long an operator takes by its arithmetic and bytes, in fp32 and in 8 bits."""
    machine = target.machine
    rate = machine.fma_per_cycle * target.lanes() * target.threads * machine.hertz
    faster = target.faster("int8") if operator.depth >= _LANE else 1.0
    fed = machine.l3_bytes_per_cycle * machine.hertz
    wide = operator.macs / rate + operator.moved / fed
    narrow = operator.macs / (rate * faster) + operator.moved / 4 / fed
    return wide, narrow
