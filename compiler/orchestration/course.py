"""One compilation's course through its stages: the result so far, the decisions, what is left.

After each stage the artifact is verified and measured.  A stage is kept if it brings the contract's
costs (time, memory, size) nearer to their limits and breaks no limit on accuracy; else it is rolled
back, and the next one continues without it.  One that breaks a limit on accuracy is first narrowed
(see `narrowing`).  A controller decides which stage comes next.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Generic

from hybridc.compiler.assurance.contract import Measured
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import MissingRecordError, PluginError, WrongAnswerError
from hybridc.compiler.orchestration import prospects
from hybridc.compiler.orchestration.budgeting import Budgeting
from hybridc.compiler.orchestration.candidates import Means, Result, Tried
from hybridc.compiler.orchestration.decisions import (
    FAILED,
    KEPT,
    NO_TIME,
    NOT_PROMISING,
    ROLLED_BACK,
    SKIPPED,
    UNCHANGED,
    Decision,
    of_stage,
    said,
)
from hybridc.compiler.orchestration.expected_gains.gains import Facts, Gain
from hybridc.compiler.orchestration.judging import (
    cost,
    in_doubt,
    latency,
    log_speedup,
    noise,
    objection,
)
from hybridc.compiler.orchestration.stages import Stage
from hybridc.compiler.orchestration.time_budget import OutOfTimeError
from hybridc.compiler.quantization import narrowing
from hybridc.compiler.quantization.operator_times import Seconds


@dataclass
class Course(Generic[Result]):
    """The state of one compilation.

    `best` is the best candidate so far, `base` the options that made it, and `first` the one that
    all are compared with.  `beyond` are the candidates that only a limit on accuracy rules out;
    `accurate` are the stages that were measured and keep the limits on accuracy.
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
        self.accurate: set[str] = set()

    @cached_property
    def facts(self) -> Facts | None:
        """Facts about the model from the first candidate; computed on first use."""
        return None if self.first is None else self.means.facts(self.first)

    @property
    def satisfied(self) -> bool:
        """Whether the best candidate so far keeps the contract."""
        return self.best is not None and not self.contract.judge(self.best.measured)

    @property
    def limited(self) -> bool:
        """Whether the contract limits a cost, so that the search can stop once it is kept."""
        return bool(self.contract.costs(Measured()))

    def upcoming(self) -> Stage | None:
        """The next stage, by the mode; None if none is left."""
        if self.first is None:
            return next(iter(self.left), None)
        return self.budget.choose(self.left)

    def predicted(self, stage: Stage) -> Gain:
        """The expected gain of a stage over the best candidate so far."""
        return self.budget.predict(stage)

    @property
    def noise(self) -> float:
        """The uncertainty of the best candidate's measurement, as a log-speedup."""
        return noise(self.best.measured if self.best else None)

    def go(self, stage: Stage) -> Decision:
        """Try a stage on the best so far, and keep it or roll it back; or skip it, with a reason.

        Raises the error of the first stage if it fails, since nothing can be compared without it.
        """
        return self.refuse(stage) or self.settle(self.attempt(stage))

    def of_level(self, level: str) -> list[Stage]:
        """The remaining stages of a level of `steering.LEVELS`, in the mode's order."""
        return [stage for stage in self.left if stage.level == level]

    def prepare(self, stages: Sequence[Stage]) -> None:
        """Compile stages on the best so far in parallel, so that trying them only measures."""
        if stages:
            self.means.prepare([self.changed(stage) for stage in stages])

    def refuse(self, stage: Stage) -> Decision | None:
        """Skip a stage that cannot help, has no time left, or is not promising."""
        if self.first is None:
            return None
        dtype = stage.change(self.options).dtype
        if stage.lossy and (vain := prospects.vain(dtype, self.options, self.facts, self.accurate)):
            return self.close(stage, SKIPPED, vain)
        if idle := prospects.idle(stage, self.facts):
            return self.close(stage, SKIPPED, idle)
        if lacking := self.budget.lacking(stage, self.left):
            return self.close(stage, NO_TIME, lacking)
        if self.options.steering.adaptive and (gain := self.predicted(stage)).hope <= self.noise:
            return self.close(stage, NOT_PROMISING, f"expected {gain.text()}, no more than noise")
        return None

    def attempt(self, stage: Stage) -> Tried[Result]:
        """Try a stage on the best so far without a decision; the result holds any error."""
        options, now = stage.change(self.base), self.budget.time_budget.now
        predicted = self.budget.told(stage)
        start = now()
        try:
            options = self.changed(stage)
            tried = self._narrowed(Tried(stage, options, 0.0, self.means.attempt(options)))
        except Exception as error:  # the controller goes on without the stage, and tells why
            tried = Tried(stage, options, 0.0, failed=error)
        return replace(tried, seconds=now() - start, predicted=predicted)

    def changed(self, stage: Stage) -> Options:
        """The options of a stage on top of the best so far, within its budget."""
        return self.budget.limited(stage.change(self.base), stage, self.left)

    def settle(self, tried: Tried[Result]) -> Decision:
        """Keep what was tried, or roll it back."""
        stage, found = tried.stage, tried.result
        if found is None:
            return self._failed(tried)
        best = self.best
        before = best.measured if best else None
        found, reason, gained = self._judged(found)
        if found is best:
            reason = UNCHANGED
        tried = replace(tried, result=found, gained=gained)
        if best is None:
            self.first = found
            self.budget.begin(lambda: self.facts, tried.seconds)
        else:
            disturbed = any(each.disturbed for each in (before, found.measured) if each)
            self.budget.learn(stage, gained, tried.seconds, kept=not reason, disturbed=disturbed)
        if not reason:
            self.best, self.base = found, self._lasting(tried)
        if not self.contract.judge_accuracy(found.measured):
            self.accurate.add(stage.name)
        whole = tried.whole or (found if reason else None)
        if whole is not None and self.contract.judge_accuracy(whole.measured):
            self.beyond.append((stage, whole))
        verdict = ROLLED_BACK if reason else KEPT
        return self.close(stage, verdict, "; ".join(filter(None, (tried.told, reason))), tried)

    def _judged(self, found: Result) -> tuple[Result, str, float | None]:
        """A candidate, why it does not stay, and the log-speedup over what stands.

        Measurements one after the other meet the machine in other states.  So where they do not
        clearly speak for the candidate, turns decide; one that wins by them is measured again.
        """
        best, threshold = self.best, self.options.steering.threshold
        before = best.measured if best else None
        reason = objection(self.contract, found.measured, before, threshold)
        gained = log_speedup(before, found.measured)
        if best is None or found is best or not in_doubt(self.contract, found.measured, before):
            return found, reason, gained
        turns = self.means.in_turns(best, found)
        if turns is None:
            return found, reason, gained
        then, now = turns
        decided = objection(self.contract, now, then, threshold)
        found = self.means.retimed(found) if reason and not decided else found
        return found, decided, log_speedup(then, now)

    def close(
        self, stage: Stage, verdict: str, reason: str = "", tried: Tried[Result] | None = None
    ) -> Decision:
        """Record the decision about a stage, which is not tried again."""
        self.left = [each for each in self.left if each is not stage]
        found = tried.result if tried else None
        decision = Decision(
            stage=stage.name,
            verdict=verdict,
            reason=reason,
            seconds=tried.seconds if tried else 0.0,
            measured=found.measured.to_json() if found else None,
            component=stage.component,
            predicted=tried.predicted if tried else self.budget.told(stage),
            operators=narrowing.operators_of(found.sensitive) if found else None,
            log_speedup=tried.gained if tried else None,
        )
        self.decisions.append(decision)
        return decision

    def cost(self, tried: Tried[Result]) -> float:
        """What a candidate costs, the less the better; infinite if there is none to use."""
        if tried.result is None or self.contract.judge_accuracy(tried.result.measured):
            return math.inf
        return cost(self.contract, tried.result.measured)

    def standing(self) -> Result:
        """The best candidate.

        Raises MissingRecordError if a lock fits no stage, and PluginError if none was tried.
        """
        if self.best is None:
            chooser = self.options.steering.strategy
            untried = PluginError(f"{chooser} tried no stage: the first must be tried in any case")
            raise self.missing or untried
        return self.best

    def _narrowed(self, tried: Tried[Result]) -> Tried[Result]:
        """The same with fewer products quantised, where that keeps the accuracy; else as it is."""
        found = tried.result
        if found is None:
            return tried
        if not self.contract.judge_accuracy(found.measured):
            return self._quickened(tried, found)
        if self.best is not None and self._costs(found) >= self._costs(self.best):
            return tried  # it would only be slower
        self.means.sensitise(found)
        made = narrowing.narrow(tried.options, found, self.means.attempt, self._timed(found))
        if made is None:
            return tried
        return replace(tried, options=made.options, result=made.best, whole=found, told=made.told)

    def _quickened(self, tried: Tried[Result], found: Result) -> Tried[Result]:
        """The same without products in 8 bits that are faster as they were, if all is so too."""
        if not (tried.stage.lossy and found.sensitive):
            return tried
        timed = self._timed(found)
        made = narrowing.quicken(tried.options, found, self.means.attempt, timed, self.noise)
        if made is None or self.contract.judge_accuracy(made.best.measured):
            return tried
        if self._costs(made.best) >= self._costs(found):
            return tried
        return replace(tried, options=made.options, result=made.best, told=made.told)

    def _timed(self, found: Result) -> tuple[Seconds, Seconds]:
        """The kernels' times of what stands and of a candidate, where calls are timed at all."""
        if self.best is None or latency(found.measured) is None:
            return {}, {}
        return self.means.kernels(self.best), self.means.kernels(found)

    def _costs(self, found: Result) -> float:
        return cost(self.contract, found.measured)

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
            raise error.too_short() if isinstance(error, OutOfTimeError) else error
        self.missing = self.missing or missing
        match error:
            case OutOfTimeError():
                verdict = NO_TIME
            case WrongAnswerError():
                verdict = ROLLED_BACK
            case _ if self.options.steering.strict and not missing:
                raise of_stage(stage.name, error)
            case _:
                verdict = FAILED
        self.budget.learn(stage, None, tried.seconds, kept=False)
        return self.close(stage, verdict, said(error), tried)
