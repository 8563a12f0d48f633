"""A model at several points of its kernels, to be called in turn."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from hybridc.compiler.interfaces import Point, Usable
from hybridc.compiler.log.advisers import NoAdvice
from hybridc.compiler.tuning.tasks import Task

Ruled = tuple[str, Point]  # a rule and a point of its space
Points = Mapping[str, Ruled]  # by the workload's key


@dataclass
class Version(NoAdvice):
    """A model at given points; what is not given a point, or cannot take it, has its default.

    `workloads` are by the kernel's name, `points` and `seconds` of one call by the workload.
    """

    given: Points
    points: dict[str, Ruled] = field(default_factory=dict[str, Ruled])
    workloads: dict[str, str] = field(default_factory=dict[str, str])
    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def choose(
        self, kernel: str, workload: str, usable: Usable, mode: str
    ) -> tuple[str, Point] | None:
        """Advise the point that the workload was given."""
        self.workloads[kernel] = workload
        advised = self.given.get(workload)
        if advised is None or usable(*advised):
            return None
        self.points[workload] = advised
        return advised

    def take(self, durations: Mapping[str, Sequence[float]]) -> None:
        """Add what the kernels took in one run; of a workload called often, the mean."""
        found: dict[str, list[float]] = {}
        for kernel, seconds in durations.items():
            if workload := self.workloads.get(kernel):
                found.setdefault(workload, []).extend(seconds)
        for workload, seconds in found.items():
            self.seconds.setdefault(workload, []).append(fmean(seconds))


def stand_ins(tasks: Iterable[Task]) -> Points | None:
    """What runs in all versions in the place of defaults that fail.

    None if nothing else is known of such a kernel: the model might bring this process down.
    """
    found: dict[str, Ruled] = {}
    for task in tasks:
        if task.default is None or task.default.seconds is not None:
            continue
        if task.best is None:
            return None
        found[task.workload.key] = task.kernel.rule_name, task.best.point
    return found


def of(lacking: Mapping[Task, Sequence[Ruled]], base: Points) -> list[Version]:
    """All at their defaults, each at the first point that it lacks, each at the second, ...

    What `base` has is that in all of them.
    """
    rounds: dict[int, dict[str, Ruled]] = {}
    for task, points in lacking.items():
        others = [ruled for ruled in points if task.choice(*ruled) != task.first]
        for number, ruled in enumerate(others):
            rounds.setdefault(number, {})[task.workload.key] = ruled
    return [Version(base), *(Version({**base, **given}) for given in rounds.values())]
