"""Every component in sequence, each on the result of the last."""

from dataclasses import dataclass
from typing import Any

from hybridc.compiler.orchestration.controller import Controller
from hybridc.compiler.orchestration.course import Course


@dataclass(frozen=True)
class Fusion(Controller):
    """Try every stage on the result so far, and keep each that improves it, contract or not."""

    timed: bool = True

    def run(self, course: Course[Any]) -> None:
        """Go through all stages; none is left out because enough was reached."""
        while stage := course.upcoming():
            course.go(stage)
