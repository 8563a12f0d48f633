"""Stop at the first stage that makes a model faster."""

from dataclasses import dataclass
from typing import Any

from hybridc.compiler.orchestration.controller import Controller
from hybridc.compiler.orchestration.course import Course
from hybridc.compiler.orchestration.decisions import KEPT


@dataclass(frozen=True)
class FirstGain(Controller):
    """Try stages in order until one is kept."""

    timed: bool = True  # times are compared even if the contract does not limit them

    def run(self, course: Course[Any]) -> None:
        """The first stage, with which others are compared, then the others up to one that stays."""
        if exact := course.upcoming():
            course.go(exact)
        while (stage := course.upcoming()) and course.go(stage).verdict != KEPT:
            pass
