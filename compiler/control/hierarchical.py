"""From the whole graph over its subgraphs to single kernels."""

from dataclasses import dataclass
from typing import Any

from hybridc.compiler.orchestration.controller import Controller
from hybridc.compiler.orchestration.course import Course


@dataclass(frozen=True)
class Hierarchical(Controller):
    """Settle the graph (precision, layout), then its fusions, then the schedules of its kernels.

    Each level gets its share of the budget, by its weight, and begins with what the last one left.
    It ends after the level with which a limited contract is kept.
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
