"""Stages in the order that costs accuracy least, up to the first that keeps the contract."""

from dataclasses import dataclass
from typing import Any

from hybridc.compiler.orchestration.controller import Controller
from hybridc.compiler.orchestration.course import Course


@dataclass(frozen=True)
class Cascade(Controller):
    """Apply stages in order, and stop at the shortest prefix that keeps the contract."""

    def run(self, course: Course[Any]) -> None:
        """Go through the stages until the contract is kept."""
        while not course.satisfied and (stage := course.upcoming()):
            course.go(stage)
