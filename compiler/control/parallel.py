"""All components at once, each on the first stage's result; the best wins."""

from dataclasses import dataclass
from typing import Any

from hybridc.compiler.orchestration.candidates import Tried
from hybridc.compiler.orchestration.controller import Controller
from hybridc.compiler.orchestration.course import Course


@dataclass(frozen=True)
class Parallel(Controller):
    """Compile each stage in a process of its own, and keep the best result that verifies.

    Only compiling is parallel.  Measurements, of kernels by tuning and of whole artifacts, run one
    at a time, while nothing else does.
    """

    timed: bool = True

    def run(self, course: Course[Any]) -> None:
        """Compile all, then verify and measure one by one, and settle them, the best first."""
        if first := course.upcoming():
            course.go(first)
        if course.left and not (course.limited and course.satisfied):
            tried = self._all(course)
            for each in sorted(tried, key=course.cost):
                course.settle(each)

    def _all(self, course: Course[Any]) -> list[Tried[Any]]:
        """Try each stage on the first one's result."""
        stages = [stage for stage in list(course.left) if not course.refuse(stage)]
        course.prepare([stage for stage in stages if not stage.measures])
        tried: list[Tried[Any]] = []
        for stage in stages:
            if course.refuse(stage) is None:
                tried.append(course.attempt(stage))
        return tried
