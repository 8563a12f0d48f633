"""Which stages a compilation may go through, in the order that costs accuracy least."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from hybridc.compiler.clause import Clause
from hybridc.compiler.contract import Contract, Measured
from hybridc.compiler.plans import Options


@dataclass(frozen=True)
class Stage:
    """One step towards the contract: what it changes in the options that stand so far.

    A `lossy` stage computes less precisely than the model and needs a limit on accuracy.
    `component` is the part of hybridc that it belongs to (see `components`).
    """

    name: str
    change: Callable[[Options], Options]
    lossy: bool = False
    component: str = "precision"


def stages(options: Options) -> tuple[Stage, ...]:
    """The stages that may be tried, the first of which always is."""
    contract = options.contract
    later: list[Stage] = []
    first = options
    if costs(contract) and options.tuning is not None:
        first = replace(first, tuning=None)
        tuned = Stage(
            "tuned", lambda base: replace(base, tuning=options.tuning), component="neural"
        )
        later.append(tuned)
    if options.dtype == "auto":
        first = replace(first, dtype="fp32")
        # What a lock was written for it does not say.
        if options.lock is not None or (costs(contract) and allows_loss(options)):
            later.append(Stage("bf16", lambda base: replace(base, dtype="bf16"), lossy=True))
    name = "bf16" if first.dtype == "bf16" else "exact"
    return Stage(name, lambda _: first, component="exact"), *later


def costs(contract: Contract) -> list[Clause]:
    """The limits on time, memory and size that are set."""
    return contract.costs(Measured())


def allows_loss(options: Options) -> bool:
    """Whether a limit says how much accuracy may be lost."""
    return bool(options.contract.accuracies(Measured())) and not options.exact
