"""One compilation's way through its stages: what stands, what was decided, what is left to try.

After each stage the artifact is verified and measured.  A stage stays if it brings the contract's
costs (time, memory, size) nearer to their limits and no limit on accuracy is broken by it; else it
is rolled back, and the next one goes on without it.  Which stage comes when, a controller says.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from hybridc.compiler.clause import Clause
from hybridc.compiler.contract import Contract, Measured
from hybridc.compiler.errors import HybridcError, MissingRecordError, WrongAnswerError
from hybridc.compiler.plans import Options
from hybridc.compiler.report import FAILED, KEPT, ROLLED_BACK, Decision
from hybridc.compiler.stages import Stage


class Candidate(Protocol):
    """What compiling gives, as far as decisions need it."""

    @property
    def measured(self) -> Measured:
        """What was measured of it."""
        ...


Result = TypeVar("Result", bound=Candidate)
Attempt = Callable[[Options], Result]


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


class Course(Generic[Result]):
    """The state of one compilation; `attempt` compiles, verifies and measures with given options.

    `best` is the candidate that stands and `base` the options that made it; `beyond` are those
    that only a limit on accuracy keeps out.
    """

    def __init__(self, options: Options, stages: Sequence[Stage], attempt: Attempt[Result]) -> None:
        self.options, self.contract = options, options.contract
        self.left = list(stages)
        self.best: Result | None = None
        self.base = options
        self.decisions: list[Decision] = []
        self.beyond: list[tuple[Stage, Result]] = []
        self._attempt = attempt
        self._missing: MissingRecordError | None = None

    @property
    def satisfied(self) -> bool:
        """Whether a candidate stands that keeps the contract."""
        return self.best is not None and not self.contract.judge(self.best.measured)

    def upcoming(self) -> Stage | None:
        """The stage that comes next; None where none is left."""
        return self.left[0] if self.left else None

    def go(self, stage: Stage) -> Decision:
        """Try a stage on what stands, and keep it or roll it back.

        Raises what the first one fails by, since nothing can be compared without it.
        """
        return self.settle(self.attempt(stage))

    def attempt(self, stage: Stage) -> Tried[Result]:
        """Try a stage on what stands, and decide nothing; what goes wrong is in the answer."""
        options, start = stage.change(self.base), time.monotonic()
        try:
            found = self._attempt(options)
        except Exception as error:  # the controller goes on without the stage, and tells why
            return Tried(stage, options, time.monotonic() - start, failed=error)
        return Tried(stage, options, time.monotonic() - start, found)

    def settle(self, tried: Tried[Result]) -> Decision:
        """Keep what was tried, or roll it back."""
        stage, found, reason = tried.stage, tried.result, ""
        if found is None:
            return self._failed(tried)
        reason = objection(self.contract, found.measured, self.best.measured if self.best else None)
        if not reason:
            self.best, self.base = found, tried.options
        elif self.contract.judge_accuracy(found.measured):
            self.beyond.append((stage, found))
        verdict, measured = ROLLED_BACK if reason else KEPT, found.measured.to_json()
        return self.close(stage, Decision(stage.name, verdict, reason, tried.seconds, measured))

    def close(self, stage: Stage, decision: Decision) -> Decision:
        """Write down what became of a stage, which is not tried again."""
        self.left = [each for each in self.left if each is not stage]
        self.decisions.append(decision)
        return decision

    def standing(self) -> Result:
        """The best candidate.  Raises MissingRecordError where a lock fits no stage."""
        if self.best is None:
            assert self._missing is not None
            raise self._missing
        return self.best

    def _failed(self, tried: Tried[Result]) -> Decision:
        """Go on without a stage; raise where there is nothing to go on with."""
        error = tried.failed
        assert error is not None
        missing = isinstance(error, MissingRecordError)
        if self.best is None and not (self.options.lock is not None and missing):
            raise error
        self._missing = self._missing or (error if isinstance(error, MissingRecordError) else None)
        verdict = ROLLED_BACK if isinstance(error, WrongAnswerError) else FAILED
        name = tried.stage.name
        return self.close(tried.stage, Decision(name, verdict, _said(error), tried.seconds))


def _said(error: Exception) -> str:
    """One line; what is no error for people carries its name."""
    told = " ".join(str(error).split())
    return told if isinstance(error, HybridcError) else f"{type(error).__name__}: {told}"


def objection(contract: Contract, found: Measured, best: Measured | None) -> str:
    """Why a candidate does not stay; empty if it does."""
    if best is None:
        return ""
    if worse := contract.judge_accuracy(found):
        return "; ".join(worse)
    then, now = shortfall(contract, best), shortfall(contract, found)
    return "" if now < then else f"no nearer to the limits: {now:.3g} of them, {then:.3g} before"


def shortfall(contract: Contract, measured: Measured) -> float:
    """The worst cost as a share of its limit: 1 just keeps it."""
    shares = [_share(clause) for clause in contract.costs(measured)]
    return max(shares, default=0.0)


def _share(clause: Clause) -> float:
    assert clause.limit is not None
    assert clause.found is not None
    value = clause.found.value
    return clause.limit / value if clause.higher else value / clause.limit
