"""From options to the best candidate: a controller takes the model through its stages."""

from dataclasses import dataclass
from typing import Generic

from hybridc.compiler import controller
from hybridc.compiler.advice import advice
from hybridc.compiler.course import Attempt, Course, Result
from hybridc.compiler.plans import Options
from hybridc.compiler.report import NOT_NEEDED, Decision
from hybridc.compiler.stages import stages


@dataclass(frozen=True)
class Cascaded(Generic[Result]):
    """The best candidate, what was decided on the way, and what would help if it is not enough."""

    best: Result
    decisions: tuple[Decision, ...]
    advice: tuple[str, ...]


def run(options: Options, attempt: Attempt[Result], strategy: str = "cascade") -> Cascaded[Result]:
    """Try the stages as the control strategy says; a later one that fails is left out.

    Raises what the first fails by; where only a lock lacks its kernels, if all do.
    """
    course = Course(options, stages(options), attempt)
    controller.catalogue(options.plugins).create(strategy).run(course)
    for stage in list(course.left):
        course.close(stage, Decision(stage.name, NOT_NEEDED))
    best = course.standing()
    told = advice(options, best, course.decisions, course.beyond)
    return Cascaded(best, tuple(course.decisions), tuple(told))
