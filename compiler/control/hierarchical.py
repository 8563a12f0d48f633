"""From the whole graph over its subgraphs to single kernels."""

from dataclasses import dataclass
from typing import Any

from hybridc.compiler.orchestration.controller import Controller
from hybridc.compiler.orchestration.course import Course


@dataclass(frozen=True)
class Hierarchical(Controller):
    """Optimise the graph (precision), then its subgraphs (fusions), then its kernels (schedules).

    Each level gets a share of the budget by its weight, and starts from the last one's result.  It
    stops after the level at which the contract is kept, if it has limits.
    """

    timed: bool = True

    def run(self, course: Course[Any]) -> None:
        """Go through the levels in order."""
        if first := course.upcoming():
            course.go(first)
        for level in course.options.steering.levels:
            if course.limited and course.satisfied:
                break
            for stage in course.of_level(level):
                course.go(stage)
