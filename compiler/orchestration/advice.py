"""What would help where a contract is not kept."""

from collections.abc import Callable, Sequence
from math import isinf

from hybridc.compiler.assurance import validation
from hybridc.compiler.assurance.clause import Clause
from hybridc.compiler.assurance.contract import SIZE, VALIDATE, Contract, Measured
from hybridc.compiler.assurance.validation import ReferenceRunner
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.model import Model
from hybridc.compiler.orchestration import prospects, stages
from hybridc.compiler.orchestration.candidates import Candidate
from hybridc.compiler.orchestration.decisions import FAILED, ROLLED_BACK, UNCHANGED, Decision
from hybridc.compiler.orchestration.expected_gains.gains import Facts
from hybridc.compiler.orchestration.judging import cost
from hybridc.compiler.orchestration.stages import Stage, allows_loss
from hybridc.compiler.orchestration.time_budget import OutOfTimeError
from hybridc.compiler.text.units import format_size


def advice(
    options: Options,
    best: Candidate,
    decisions: Sequence[Decision],
    beyond: Sequence[tuple[Stage, Candidate]],
    facts: Callable[[], Facts | None] = lambda: None,
) -> list[str]:
    """What would bring the costs within their limits, where they are not, and what did not.

    `facts` finds out about the model, if it is asked.
    """
    contract = options.contract
    short = [clause for clause in contract.costs(best.measured) if not clause.kept]
    if not short:
        return []
    told = _nearest(contract, best) + _weightless(contract, facts)
    inaccurate = {stage.name for stage, _ in beyond}
    told += [
        f"{each.stage} did not help: {each.reason}"
        for each in decisions
        if each.verdict in (ROLLED_BACK, FAILED)
        and each.stage not in inaccurate
        and each.reason != UNCHANGED
    ]
    told += [
        f"without the limit on accuracy {stage.name} would reach {_reached(contract, found)}"
        for stage, found in beyond
        if cost(contract, found.measured) < cost(contract, best.measured)
    ]
    if options.dtype == "auto" and not allows_loss(options) and not options.exact:
        known = facts()
        allowed = [name for name in stages.LOSSY if not prospects.vain(name, options, known)]
        limit = "a limit on accuracy (--min-accuracy cosine=0.999)"
        told += [f"{limit} would allow {listed(allowed)}"] if allowed else []
    return told


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def of_reference(
    model: Model, contract: Contract, measured: Measured, left: float | None = None
) -> list[str]:
    """The reference's own figure, where the limit on the user's own measure is not kept.

    A limit that lies beyond it is beyond what any precision can be asked for.  Nothing where the
    function takes longer than the seconds that are `left`.
    """
    limit, found = contract.min_accuracy.get(VALIDATE), measured.accuracy.get(VALIDATE)
    if contract.validate is None or limit is None or found is None or found.value >= limit:
        return []
    try:
        own = validation.figure(contract.validate, ReferenceRunner(model), left)
    except OutOfTimeError:
        return []
    return [f"the reference's own figure is {own:.6g}"]


def of_samples(contract: Contract, measured: Measured, count: int, data: str) -> list[str]:
    """That the samples, `count` of them, are too few to be sure of what they seem to show."""
    doubtful = [clause.name for clause in contract.accuracies(measured) if clause.doubtful]
    if not doubtful:
        return []
    samples = "1 sample is" if count == 1 else f"{count} samples are"
    return [
        f"{samples} too few to be sure of {listed(doubtful)} ({data}): give more with --calibration"
        " or --validation"
    ]


def _nearest(contract: Contract, best: Candidate) -> list[str]:
    """`nearest: latency 5.8 ms of 5 ms at cosine 0.9993`, where accuracy is limited.

    The size of the file is not final before its report is, and is told with the limit on it.
    """
    costs = [
        f"{clause.name} {_found(clause)} of {clause.show(clause.limit)}"
        for clause in contract.costs(best.measured)
        if not clause.kept
        and clause.found is not None
        and clause.limit is not None
        and clause.name != SIZE
    ]
    accuracies = [
        f"{clause.name.removeprefix('accuracy ')} {clause.show(clause.found.value)}"
        for clause in contract.accuracies(best.measured)
        if clause.found is not None
    ]
    if not costs or not accuracies:
        return []
    return [f"nearest: {', '.join(costs)} at {', '.join(accuracies)}"]


def _weightless(contract: Contract, facts: Callable[[], Facts | None]) -> list[str]:
    """That no precision brings the file within its limit, since what is no weights is larger."""
    known = None if contract.max_size is None else facts()
    if known is None or contract.max_size is None or known.code <= contract.max_size:
        return []
    return [f"no precision is that small: {format_size(known.code)} are not weights"]


def _found(clause: Clause) -> str:
    """What was measured; where that alone would keep the limit, its worse end too."""
    if not clause.doubtful or isinf(clause.bound):
        return clause.value
    return f"{clause.value}, perhaps {clause.show(clause.bound)},"


def _reached(contract: Contract, found: Candidate) -> str:
    clauses = [*contract.costs(found.measured), *contract.accuracies(found.measured)]
    return ", ".join(f"{c.name} {c.show(c.found.value)}" for c in clauses if c.found is not None)
