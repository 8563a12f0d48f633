"""Stages in the order that costs accuracy least, up to the first that keeps the contract.

After each stage the artifact is verified and measured.  A stage stays if it brings the contract's
costs (time, memory, size) nearer to their limits and no limit on accuracy is broken by it; else it
is rolled back, and the next one goes on without it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from hybridc.compiler.clause import Clause
from hybridc.compiler.contract import Contract, Measured
from hybridc.compiler.errors import HybridcError, MissingRecordError
from hybridc.compiler.plans import Options
from hybridc.compiler.report import KEPT, NOT_NEEDED, ROLLED_BACK, Decision
from hybridc.compiler.stages import Stage, allows_loss, stages


class Candidate(Protocol):
    """What compiling gives, as far as decisions need it."""

    @property
    def measured(self) -> Measured:
        """What was measured of it."""
        ...


Result = TypeVar("Result", bound=Candidate)


@dataclass(frozen=True)
class Cascaded(Generic[Result]):
    """The best candidate, what was decided on the way, and what would help if it is not enough."""

    best: Result
    decisions: tuple[Decision, ...]
    advice: tuple[str, ...]


def run(options: Options, attempt: Callable[[Options], Result]) -> Cascaded[Result]:
    """Try the stages one after another; a later one that fails is rolled back.

    Raises HybridcError where the first fails; where only a lock lacks its kernels, if all do.
    """
    best: Result | None = None
    base, contract = options, options.contract
    decisions: list[Decision] = []
    beyond: list[tuple[Stage, Result]] = []
    missing: MissingRecordError | None = None
    for stage in stages(options):
        if best is not None and not contract.judge(best.measured):
            decisions.append(Decision(stage.name, NOT_NEEDED))
            continue
        start, changed = time.monotonic(), stage.change(base)
        try:
            found = attempt(changed)
        except HybridcError as error:
            locked = options.lock is not None and isinstance(error, MissingRecordError)
            if best is None and not locked:
                raise
            missing = missing or (error if isinstance(error, MissingRecordError) else None)
            spent = time.monotonic() - start
            decisions.append(Decision(stage.name, ROLLED_BACK, str(error), spent))
            continue
        reason = _objection(contract, found.measured, best.measured if best else None)
        if not reason:
            best, base = found, changed
        elif contract.judge_accuracy(found.measured):
            beyond.append((stage, found))
        verdict, spent = ROLLED_BACK if reason else KEPT, time.monotonic() - start
        measured = found.measured.to_json()
        decisions.append(Decision(stage.name, verdict, reason, spent, measured))
    if best is None:
        assert missing is not None
        raise missing
    return Cascaded(best, tuple(decisions), tuple(_advice(options, best, decisions, beyond)))


def _objection(contract: Contract, found: Measured, best: Measured | None) -> str:
    """Why a stage does not stay; empty if it does."""
    if best is None:
        return ""
    if worse := contract.judge_accuracy(found):
        return "; ".join(worse)
    then, now = _shortfall(contract, best), _shortfall(contract, found)
    return "" if now < then else f"no nearer to the limits: {now:.3g} of them, {then:.3g} before"


def _advice(
    options: Options,
    best: Candidate,
    decisions: Sequence[Decision],
    beyond: Sequence[tuple[Stage, Candidate]],
) -> list[str]:
    """What would bring the costs within their limits, where they are not, and what did not."""
    contract = options.contract
    short = [clause for clause in contract.costs(best.measured) if not clause.kept]
    if not short:
        return []
    inaccurate = {stage.name for stage, _ in beyond}
    told = [
        f"{each.stage} did not help: {each.reason}"
        for each in decisions
        if each.verdict == ROLLED_BACK and each.stage not in inaccurate
    ]
    told += [
        f"without the limit on accuracy {stage.name} would reach {_reached(contract, found)}"
        for stage, found in beyond
    ]
    if options.dtype == "auto" and not allows_loss(options) and not options.exact:
        told.append("a limit on accuracy (--min-accuracy cosine=0.999) would allow bf16")
    return told


def _reached(contract: Contract, found: Candidate) -> str:
    clauses = [*contract.costs(found.measured), *contract.accuracies(found.measured)]
    return ", ".join(f"{c.name} {c.show(c.found.value)}" for c in clauses if c.found is not None)


def _shortfall(contract: Contract, measured: Measured) -> float:
    """The worst cost as a share of its limit: 1 just keeps it."""
    shares = [_share(clause) for clause in contract.costs(measured)]
    return max(shares, default=0.0)


def _share(clause: Clause) -> float:
    assert clause.limit is not None
    assert clause.found is not None
    value = clause.found.value
    return clause.limit / value if clause.higher else value / clause.limit
