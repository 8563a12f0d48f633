"""From options to the best candidate: a controller takes the model through its stages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic

from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.orchestration import budgeting, controller, modes, selection
from hybridc.compiler.orchestration.advice import advice
from hybridc.compiler.orchestration.budgeting import Budgeting
from hybridc.compiler.orchestration.candidates import Means, Result
from hybridc.compiler.orchestration.contributions import Hybrid, disturbed, results
from hybridc.compiler.orchestration.controller import Controller
from hybridc.compiler.orchestration.course import Course
from hybridc.compiler.orchestration.decisions import NOT_NEEDED, Decision
from hybridc.compiler.orchestration.expected_gains.history import Past
from hybridc.compiler.orchestration.stages import stages
from hybridc.compiler.orchestration.time_budget import TimeBudget
from hybridc.compiler.plugin_faults import blaming


@dataclass(frozen=True)
class Cascaded(Generic[Result]):
    """The best candidate, the decisions that led to it, and advice if it breaks the contract.

    `hybrid` is what each component contributed, and `learnt` what each stage gained.
    """

    best: Result
    decisions: tuple[Decision, ...]
    advice: tuple[str, ...]
    hybrid: Hybrid
    learnt: tuple[Past, ...] = ()


def strategy(options: Options) -> Controller:
    """The control strategy that the options name.

    Raises InputError or PluginError if its name or one of its options is wrong.
    """
    known, asked = controller.catalogue(options.plugins), options.steering.strategy
    name = asked.partition("{")[0]
    if name not in known.names():
        raise InputError(f"no strategy is named {name!r}; {hint(name, known.names())}")
    return known.create(asked)


def check(options: Options) -> None:
    """Raise InputError or PluginError if the options for choosing stages are wrong."""
    chosen = _selected(timed(options))
    selection.ordered(chosen.stages, options.steering.order)


def timed(options: Options) -> Options:
    """The options, with calls timed if the strategy compares times."""
    return replace(options, timed=options.timed or strategy(options).timed)


def several(options: Options) -> bool:
    """Whether there is more than one stage to go through."""
    return len(_selected(timed(options)).stages) > 1


def run(
    options: Options,
    means: Means[Result],
    time_budget: TimeBudget | None = None,
    past: Sequence[Past] = (),
) -> Cascaded[Result]:
    """Try the stages as the control strategy says; a later stage that fails is skipped.

    Raises the error of the first stage; with a lock that lacks its kernels, only if all fail.
    """
    options = timed(options)
    chosen, steering = _selected(options), options.steering
    time_budget = time_budget or TimeBudget(steering.budget)
    budget = Budgeting(options, chosen.stages, time_budget, past)
    left = budgeting.in_turns(selection.ordered(chosen.stages, steering.order), options)
    course = Course(options, left, means, budget, list(chosen.decisions))
    chooser = strategy(options)
    with blaming(chooser):
        chooser.run(course)
    for stage in list(course.left):
        course.close(stage, NOT_NEEDED)
    best = course.standing()
    # A component without stages has no share of the budget.
    weights = budget.weights(sorted({stage.component for stage in chosen.stages[1:]}))
    found = results(course.decisions, chosen.enabled, weights)
    return Cascaded(
        best,
        tuple(course.decisions),
        tuple(advice(options, best, course.decisions, course.beyond, lambda: course.facts)),
        Hybrid(steering.strategy, steering.mode, found, disturbed(course.decisions)),
        tuple(budget.learnt),
    )


def _selected(options: Options) -> selection.Selection:
    steering = options.steering
    extra, found = modes.primary(steering.mode), stages(options)
    # Where nothing tells candidates apart, kernels are tuned at once.
    within = ("neural",) if found[0].change(options).tuning is not None else ()
    return selection.select(found, steering.components, extra, steering.strict, within)
