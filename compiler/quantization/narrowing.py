"""Narrow a lossy stage: leave some operators as they were, and keep the rest.

Where a stage breaks a limit on accuracy, an `Assigner` is asked for the fastest assignment with a
share of the error, and each answer is compiled, verified and measured.  The share is found by
bisection, on a scale of logarithms, since few operators make most of the error.  Errors that add up
otherwise than expected may hide from that: then ever more of the most sensitive operators stay.
Where the limits are kept, operators may still be left as they were since they are faster so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from hybridc.compiler import target
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.orchestration.candidates import Candidate, Result
from hybridc.compiler.orchestration.time_budget import OutOfTimeError
from hybridc.compiler.quantization import assignment, sensitivity
from hybridc.compiler.quantization.assignment import Assigner, Choice, Greedy
from hybridc.compiler.quantization.operator_times import OperatorTimes, Seconds
from hybridc.compiler.quantization.sensitivity import Lowered, Operator

# Assignments that are compiled and measured at most.
STEPS = 4
# The least share of the error that is tried, or so far below the first one where that is less: of
# errors of one size, hardly an operator is left to lower there.
_LEAST, _BELOW = 2.0**-12, 2.0**-8
# Beyond, noise turns the outputs less than in proportion: to a cosine of 0 at most.
_LINEAR = 0.1
# Between shares that are nearer to each other than this no operator is decided otherwise.
_NEAR = 1.001
# Operators that are told by name.
_SHOWN = 5
_AS_IT_WAS = "as it was"


@dataclass(frozen=True)
class Broken:
    """What breaks a limit, or is wrong: what was measured of it, and what was lowered in it."""

    measured: Measured
    sensitive: Lowered | None


@dataclass(frozen=True)
class Narrowed(Generic[Result]):
    """The candidate that keeps the accuracy, by which options, and what stayed in it and why."""

    best: Result
    options: Options
    told: str


def narrow(
    options: Options,
    broken: Candidate,
    attempt: Callable[[Options], Result],
    timed: tuple[Seconds, Seconds] = ({}, {}),
    assigner: Assigner | None = None,
) -> Narrowed[Result] | None:
    """Find an assignment that keeps the limits on accuracy, and is verified.

    `options` gave what is `broken`.  `timed` are seconds of kernels by their FLOPs, before and with
    the stage (see `operator_times`).  Of at most `STEPS` that are tried, the one with the largest
    share of the error is returned that keeps the limits, or None.
    """
    if broken.sensitive is None or not broken.sensitive.operators:
        return None
    operators = sensitivity.measured(broken.sensitive)
    device = target.parse(options.target, options.threads)
    problem = _problem(operators, OperatorTimes(operators, device, *timed))
    whole = sum(each.counts for each in operators)
    low, high, share = _shares(operators, _first_share(options.contract, broken.measured, whole))
    tries = _Tries(options, operators, attempt)
    while tries.left and high > _NEAR * low:
        kept = _kept((assigner or Greedy()).assign(problem, whole * share), operators)
        low, high = (share, high) if tries.holds(kept) else (low, share)
        share = (low * high) ** 0.5
    for lowered in _otherwise(operators):
        if tries.best is not None or not tries.left:
            break
        tries.holds(tuple(each.name for each in operators if each.name not in lowered))
    return tries.best


def _otherwise(operators: Sequence[Operator]) -> Iterator[set[str]]:
    """What else may be lowered: ever fewer of the least sensitive, then each of them alone."""
    worst = [each.name for each in sorted(operators, key=lambda each: -each.counts)]
    for count in _growing(len(worst) - 1):
        yield set(worst[count:])
    yield from ({name} for name in reversed(worst))


def _growing(most: int) -> Iterator[int]:
    """1, 2, 4, and so on, and `most` itself at last."""
    count = 1
    while count < most:
        yield count
        count *= 2
    yield most


@dataclass
class _Tries(Generic[Result]):
    """Assignments that were tried, by the operators that stay as they were.

    `best` is the last one that keeps the limits; `left` is how many more may be tried.  Where
    some operators in less precision were too inaccurate, they and others are not tried.
    """

    options: Options
    operators: Sequence[Operator]
    attempt: Callable[[Options], Result]
    best: Narrowed[Result] | None = None
    left: int = STEPS

    def __post_init__(self) -> None:
        """All in less precision is broken; nothing in less precision is as it was."""
        nothing = tuple(each.name for each in self.operators)
        self._known = {self.options.precise: False, nothing: True}
        self._inaccurate: list[set[str]] = []

    def holds(self, kept: tuple[str, ...]) -> bool:
        """Whether the limits hold where these operators stay; each is compiled once."""
        if any(set(kept) <= stayed for stayed in self._inaccurate):
            return False
        if kept not in self._known:
            self.left -= 1
            self._known[kept] = self._try(replace(self.options, precise=kept))
        return self._known[kept]

    def _try(self, changed: Options) -> bool:
        try:
            result = self.attempt(changed)
        except OutOfTimeError:
            self.left = 0
            return False
        except HybridcError:  # the stage as a whole compiled: so may the next narrowed one
            return False
        if self.options.contract.judge_accuracy(result.measured):
            self._inaccurate.append(set(changed.precise))
            return False
        self.best = Narrowed(result, changed, _told(changed.precise, self.operators))
        return True


def quicken(
    options: Options,
    found: Candidate,
    attempt: Callable[[Options], Result],
    timed: tuple[Seconds, Seconds],
    noise: float,
) -> Narrowed[Result] | None:
    """Leave operators as they were that took longer in 8 bits.

    `options` gave what was `found`, `timed` are as in `narrow`.  None if these operators lose no
    more than the share `noise` of a call, or where the rest does not compile.
    """
    latency, sensitive = found.measured.latency, found.sensitive
    if latency is None or sensitive is None:
        return None
    operators = sensitive.operators
    times = OperatorTimes(operators, target.parse(options.target, options.threads), *timed)
    lost = {each.name: _lost(each, times) for each in operators}
    slower = tuple(name for name, seconds in lost.items() if seconds > 0)
    if sum(lost[name] for name in slower) <= noise * latency.value:
        return None
    kept = tuple(e.name for e in operators if e.name in slower or e.name in options.precise)
    changed = replace(options, precise=kept)
    try:
        result = attempt(changed)
    except HybridcError:
        return None
    shown = ", ".join(each.described for each in operators if each.name in slower[:_SHOWN])
    more = f" and {len(slower) - _SHOWN} more" if len(slower) > _SHOWN else ""
    count = len(operators) - len(kept)
    note = f"{count} of {len(operators)} operators; faster as they were: {shown}{more}"
    return Narrowed(result, changed, note)


def _lost(operator: Operator, times: OperatorTimes) -> float:
    """Seconds that an operator took longer in 8 bits; 0 if nobody timed it."""
    found = times.measured(operator) if operator.lowered else None
    return max(0.0, found[1] - found[0]) if found else 0.0


def _problem(operators: Sequence[Operator], times: OperatorTimes) -> list[assignment.Operator]:
    problem: list[assignment.Operator] = []
    for each in operators:
        wide, narrow_ = times.of(each)
        choices = Choice(_AS_IT_WAS, wide, 0.0), Choice("int8", narrow_, each.counts)
        problem.append(assignment.Operator(each.name, choices))
    return problem


def _kept(chosen: assignment.Assignment, operators: Sequence[Operator]) -> tuple[str, ...]:
    return tuple(each.name for each in operators if chosen[each.name].precision == _AS_IT_WAS)


def _shares(operators: Sequence[Operator], first: float) -> tuple[float, float, float]:
    """The shares of the error between which one is sought, and the first that is tried.

    One operator may make nearly all of the error: then shares that say anything of the others are
    smaller than shares usually are.  None is so small that no operator could be lowered.
    """
    errors = [each.counts for each in operators if each.counts > 0]
    least = min(errors) / sum(errors) if errors else 1.0
    share = min(1.0, max(first, _NEAR * least))
    return max(least / _NEAR, min(_LEAST, _BELOW * share)), 1.0, share


def _first_share(contract: Contract, measured: Measured, whole: float) -> float:
    """What share of the error the limits leave, as far as they are on a cosine.

    Noise of energy e beside a signal of 1 turns it to a cosine of about 1 - e/2; that of all
    operators together is `whole`.
    """
    limit, found = contract.min_accuracy.get("cosine"), measured.accuracy.get("cosine")
    if limit is None or found is None or found.low >= limit or limit >= 1:
        return 0.25
    lost = 1 - found.low
    return 0.7 * (1 - limit) / (lost if lost < _LINEAR else max(lost, whole / 2))


def _told(kept: Sequence[str], operators: Sequence[Operator]) -> str:
    """Which operators stay, and what for."""
    stay = [each for each in operators if each.name in kept]
    worst = sorted(stay, key=lambda each: -each.counts)
    shown = ", ".join(f"{each.described} ({each.counts:.1e})" for each in worst[:_SHOWN])
    more = f" and {len(stay) - _SHOWN} more" if len(stay) > _SHOWN else ""
    count = len(operators) - len(stay)
    return f"{count} of {len(operators)} operators; most error for their time: {shown}{more}"


def operators_of(lowered: Lowered | None) -> Mapping[str, Any] | None:
    """For the report: how many operators a stage lowered, and each of them."""
    if lowered is None:
        return None
    entries = [each.to_json() for each in lowered.operators]
    return {"lowered": sum(each.lowered for each in lowered.operators), "operators": entries}
