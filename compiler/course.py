"""One compilation's way through its stages: what stands, what was decided, what is left to try.

After each stage the artifact is verified and measured.  A stage stays if it brings the contract's
costs (time, memory, size) nearer to their limits and no limit on accuracy is broken by it; else it
is rolled back, and the next one goes on without it.  Which stage comes when, a controller says.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from hybridc.compiler.budgeting import Budgeting
from hybridc.compiler.contract import Measured
from hybridc.compiler.decisions import FAILED, KEPT, NO_TIME, NOT_PROMISING, ROLLED_BACK, Decision
from hybridc.compiler.errors import HybridcError, MissingRecordError, WrongAnswerError
from hybridc.compiler.gains import Facts, Gain
from hybridc.compiler.judging import cost, latency, objection
from hybridc.compiler.plans import Options
from hybridc.compiler.purse import OutOfTimeError
from hybridc.compiler.stages import Stage


class Candidate(Protocol):
    """What compiling gives, as far as decisions need it."""

    @property
    def measured(self) -> Measured:
        """What was measured of it."""
        ...


Result = TypeVar("Result", bound=Candidate)
Attempt = Callable[[Options], Result]


def _nothing(_: Sequence[Options]) -> None:
    """Prepare nothing."""


def _unknown(_: object) -> Facts | None:
    """Know nothing."""
    return None


@dataclass(frozen=True)
class Means(Generic[Result]):
    """What a course works with.

    `attempt` compiles, verifies and measures with given options; `prepare` compiles several side by
    side, so that attempts of them have only to measure; `facts` analyses a result.
    """

    attempt: Attempt[Result]
    prepare: Callable[[Sequence[Options]], None] = _nothing
    facts: Callable[[Result], Facts | None] = _unknown


@dataclass(frozen=True)
class Tried(Generic[Result]):
    """A stage that was tried: the options that it made, and what came of them.

    `failed` is why there is no result.
    """

    stage: Stage
    options: Options
    seconds: float
    result: Result | None = None
    failed: Exception | None = None


@dataclass
class Course(Generic[Result]):
    """The state of one compilation.

    `best` is the candidate that stands and `base` the options that made it; `first` is the one
    that all are compared with, and `beyond` are those that only a limit on accuracy keeps out.
    """

    options: Options
    left: list[Stage]
    means: Means[Result]
    budget: Budgeting
    decisions: list[Decision] = field(default_factory=list[Decision])

    def __post_init__(self) -> None:
        self.contract, self.base = self.options.contract, self.options
        self.first: Result | None = None
        self.best: Result | None = None
        self.beyond: list[tuple[Stage, Result]] = []
        self.missing: MissingRecordError | None = None

    @property
    def satisfied(self) -> bool:
        """Whether a candidate stands that keeps the contract."""
        return self.best is not None and not self.contract.judge(self.best.measured)

    @property
    def limited(self) -> bool:
        """Whether the contract limits a cost, so that enough is enough."""
        return bool(self.contract.costs(Measured()))

    def upcoming(self) -> Stage | None:
        """The stage that comes next, as the mode says; None where none is left."""
        if self.first is None:
            return next(iter(self.left), None)
        return self.budget.choose(self.left)

    def predicted(self, stage: Stage) -> Gain:
        """What a stage is expected to gain on what stands."""
        return self.budget.predict(stage)

    @property
    def noise(self) -> float:
        """The log-speedup that a measurement of what stands may be off by."""
        found = self.best.measured.latency if self.best else None
        if found is None or not found.value or not math.isfinite(found.high):
            return _LEAST_NOISE
        return max(_LEAST_NOISE, (found.high - found.low) / (2 * found.value))

    def go(self, stage: Stage) -> Decision:
        """Try a stage on what stands, and keep it or roll it back; or leave it out, and say why.

        Raises what the first one fails by, since nothing can be compared without it.
        """
        return self.refuse(stage) or self.settle(self.attempt(stage))

    def of_level(self, level: str) -> list[Stage]:
        """The stages of a level of `steering.LEVELS` that are left, in the mode's order."""
        return [stage for stage in self.left if stage.level == level]

    def prepare(self, stages: Sequence[Stage]) -> None:
        """Compile stages on what stands side by side, so that trying them has only to measure."""
        if len(stages) > 1:
            self.means.prepare([self.changed(stage) for stage in stages])

    def refuse(self, stage: Stage) -> Decision | None:
        """Leave a stage out for which there is no time, or which promises nothing."""
        if self.first is None:
            return None
        if lacking := self.budget.lacking(stage, self.left):
            return self.close(stage, NO_TIME, lacking)
        if self.options.steering.adaptive and (gain := self.predicted(stage)).hope <= self.noise:
            told = f"expected to gain {gain.mean:.1%} ± {gain.sigma:.1%}, inside the noise"
            return self.close(stage, NOT_PROMISING, told)
        return None

    def attempt(self, stage: Stage) -> Tried[Result]:
        """Try a stage on what stands, and decide nothing; what goes wrong is in the answer."""
        options, now = stage.change(self.base), self.budget.purse.now
        start = now()
        try:
            options = self.changed(stage)
            found = self.means.attempt(options)
        except Exception as error:  # the controller goes on without the stage, and tells why
            return Tried(stage, options, now() - start, failed=error)
        return Tried(stage, options, now() - start, found)

    def changed(self, stage: Stage) -> Options:
        """The options that a stage makes of those that stand, within what it may spend."""
        return self.budget.limited(stage.change(self.base), stage, self.left)

    def settle(self, tried: Tried[Result]) -> Decision:
        """Keep what was tried, or roll it back."""
        stage, found = tried.stage, tried.result
        if found is None:
            return self._failed(tried)
        best, threshold = self.best, self.options.steering.threshold
        before = best.measured if best else None
        reason = objection(self.contract, found.measured, before, threshold)
        if found is best:
            reason = "it changes nothing"
        gained = _log_speedup(before, found.measured)
        if best is None:
            self.first = found
            self.budget.begin(self.means.facts(found), tried.seconds)
        else:
            self.budget.learn(stage, gained, tried.seconds, kept=not reason)
        if not reason:
            self.best, self.base = found, self._lasting(tried)
        elif self.contract.judge_accuracy(found.measured):
            self.beyond.append((stage, found))
        return self.close(stage, ROLLED_BACK if reason else KEPT, reason, tried)

    def close(
        self, stage: Stage, verdict: str, reason: str = "", tried: Tried[Result] | None = None
    ) -> Decision:
        """Write down what became of a stage, which is not tried again."""
        self.left = [each for each in self.left if each is not stage]
        decision = Decision(
            stage=stage.name,
            verdict=verdict,
            reason=reason,
            seconds=tried.seconds if tried else 0.0,
            measured=tried.result.measured.to_json() if tried and tried.result else None,
            component=stage.component,
            predicted=self.budget.told(stage) if self.first is not None else None,
        )
        self.decisions.append(decision)
        return decision

    def cost(self, tried: Tried[Result]) -> float:
        """What a candidate costs, the less the better; infinite where there is none to use."""
        if tried.result is None or self.contract.judge_accuracy(tried.result.measured):
            return math.inf
        return cost(self.contract, tried.result.measured)

    def standing(self) -> Result:
        """The best candidate.  Raises MissingRecordError where a lock fits no stage."""
        if self.best is None:
            assert self.missing is not None
            raise self.missing
        return self.best

    def _lasting(self, tried: Tried[Result]) -> Options:
        """The options of what stands, without what was a limit for that one stage."""
        limited, tuning = tried.options, tried.options.tuning
        if tuning is None or self.options.tuning is None:
            return limited
        return replace(limited, tuning=replace(tuning, budget=self.options.tuning.budget))

    def _failed(self, tried: Tried[Result]) -> Decision:
        """Go on without a stage; raise where there is nothing to go on with."""
        error, stage = tried.failed, tried.stage
        assert error is not None
        missing = error if isinstance(error, MissingRecordError) else None
        if self.best is None and not (self.options.lock is not None and missing):
            raise _too_short(error) if isinstance(error, OutOfTimeError) else error
        self.missing = self.missing or missing
        match error:
            case OutOfTimeError():
                verdict = NO_TIME
            case WrongAnswerError():
                verdict = ROLLED_BACK
            case _ if self.options.steering.strict and not missing:
                raise error
            case _:
                verdict = FAILED
        self.budget.learn(stage, None, tried.seconds, kept=False)
        return self.close(stage, verdict, _said(error), tried)


_LEAST_NOISE = 0.01  # no clock on a machine with other programs tells less apart


def _said(error: Exception) -> str:
    """One line; what is no error for people carries its name."""
    told = " ".join(str(error).split())
    return told if isinstance(error, HybridcError) else f"{type(error).__name__}: {told}"


def _too_short(error: OutOfTimeError) -> OutOfTimeError:
    return OutOfTimeError(f"{error}: it is too short for one stage, and nothing was written")


def _log_speedup(before: Measured | None, after: Measured) -> float | None:
    then, now = latency(before), latency(after)
    return math.log(then / now) if then and now else None
