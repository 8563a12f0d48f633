"""Which stages a compilation may go through, in the order that costs accuracy least."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from hybridc.compiler import pipeline, target
from hybridc.compiler.assurance.clause import Clause
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.orchestration import precisions

WITHOUT = "no-"  # how the names of stages begin that leave out a pass
# The lossy precisions that are tried where they have a prospect, as a rule the most precise first;
# weights of 4 bits are for size.
LOSSY = ("tf32", "bf16", "fp16", "int8-weights", "int8", "int8-dynamic", "int4-weights")


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

    @property
    def level(self) -> str:
        """What it works on: the whole `graph`, a `subgraph`, or each `kernel`."""
        return {"neural": "kernel", "subgraph": "subgraph"}.get(self.component, "graph")

    @property
    def measures(self) -> bool:
        """Whether compiling it takes times, so that nothing may run beside it."""
        return self.component == "neural"


def stages(options: Options) -> tuple[Stage, ...]:
    """The stages that may be tried, the first of which always is."""
    later: list[Stage] = []
    first = options
    if judged(options) and options.tuning is not None:
        first = replace(first, tuning=None)
        tuned = Stage(
            "tuned", lambda base: replace(base, tuning=options.tuning), component="neural"
        )
        later.append(tuned)
    if options.dtype == "auto":
        first = replace(first, dtype="fp32")
        # A lock without its artifact does not say what it was written for.
        if options.lock is not None or (judged(options) and allows_loss(options)):
            known = precisions.of_device(target.kind_of(options.target))
            names = [name for name in LOSSY if name in known]
            later += [Stage(name, partial(_in, name), lossy=True) for name in names]
    if options.timed:
        later += subgraph_stages(options)
    name = "exact" if first.dtype == "fp32" else first.dtype
    return Stage(name, lambda _: first, component="exact"), *later


def calibrates(options: Options) -> bool:
    """Whether a stage that may be tried takes ranges from calibration data."""
    return any(plans.calibrates(stage.change(options)) for stage in stages(options))


def _in(dtype: str, base: Options) -> Options:
    return replace(base, dtype=dtype)


# Passes that make one kernel of several, or save a copy by an odd stride: mostly, but not on every
# machine and for every shape, that pays.
_FUSIONS = ("fuse-attention", "fuse-depthwise", "combine-projections", "avoid-copies")


def subgraph_stages(options: Options) -> list[Stage]:
    """A stage for each such pass of the pipeline, without it."""
    entries = pipeline.entries(options.pipeline)
    names = {entry.partition("{")[0] for entry in entries}
    return [
        Stage(f"{WITHOUT}{name}", partial(_without, name), component="subgraph")
        for name in _FUSIONS
        if name in names
    ]


def _without(name: str, base: Options) -> Options:
    entries = pipeline.entries(base.pipeline)
    kept = [entry for entry in entries if entry.partition("{")[0] != name]
    return replace(base, pipeline=",".join(kept))


def judged(options: Options) -> bool:
    """Whether there is something that tells candidates apart: a limit, or the time of a call."""
    return bool(costs(options.contract)) or options.timed


def costs(contract: Contract) -> list[Clause]:
    """The limits on time, memory and size that are set."""
    return contract.costs(Measured())


def allows_loss(options: Options) -> bool:
    """Whether a limit says how much accuracy may be lost."""
    return bool(options.contract.accuracies(Measured())) and not options.exact
