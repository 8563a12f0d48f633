"""The component that is expected to gain most comes first."""

from dataclasses import dataclass
from typing import Any

from hybridc.compiler.orchestration.controller import Controller
from hybridc.compiler.orchestration.course import Course
from hybridc.compiler.orchestration.decisions import NOT_PROMISING


@dataclass(frozen=True)
class Adaptive(Controller):
    """Analyse the model, and try stages in the order of their expected gain.

    It stops when the contract is kept, or when no remaining stage may gain more than the noise of
    the measurement, even one standard deviation above its expected gain.
    """

    timed: bool = True

    def run(self, course: Course[Any]) -> None:
        """Try the best first, and ask again after each."""
        if first := course.upcoming():
            course.go(first)
        while course.left and not self._enough(course):
            expected = [(course.predicted(stage), stage) for stage in course.left]
            hopeful = [pair for pair in expected if pair[0].hope > course.noise]
            if not hopeful:
                break
            course.go(max(hopeful, key=lambda pair: pair[0].mean)[1])
        if not self._enough(course):
            self._leave(course)

    def _enough(self, course: Course[Any]) -> bool:
        """Whether limits on costs are set and kept; without any, all that helps is wanted."""
        return course.limited and course.satisfied

    def _leave(self, course: Course[Any]) -> None:
        for stage in list(course.left):
            told = f"expected {course.predicted(stage).text()}, no more than noise"
            course.close(stage, NOT_PROMISING, told)
