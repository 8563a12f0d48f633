"""The best points of similar kernels in the log, as points to start a search with."""

from collections.abc import Iterable, Iterator

from hybridc.compiler.interfaces import Point
from hybridc.compiler.log import keys
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.lookup import Hit
from hybridc.compiler.log.nearest import of_kind
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.log.winner import Measured
from hybridc.compiler.tuning.prediction import features
from hybridc.compiler.tuning.prediction.features import Similar
from hybridc.compiler.tuning.tasks import Task

# Kernels of the log that are asked for their best, and hints that a search is given.
_ASKED, _HINTS = 4, 2


def hints(
    task: Task, tasks: Iterable[Task], log: TuningLog, toolchain: Described
) -> tuple[Point, ...]:
    """Points of the task's space that were best for kernels like it, the most alike first.

    Those are kernels of the log that compute the same in other sizes, and kernels of the tuning
    with the same rule whose work, traffic and outputs are similar.
    """
    space, rule = task.search.space, task.kernel.rule_name
    others = [other for other in tasks if other is not task and other.best]
    known = [Similar(o.kernel.rule_name, o.features, o.best.point) for o in others if o.best]
    points = [
        *(features.moved(point, space) for point in _of_log(task, log, toolchain)),
        *features.hints(rule, task.features, known, space, _HINTS),
    ]
    distinct = {task.search.key(point): point for point in reversed(points)}
    distinct.pop(task.search.key(task.search.default), None)
    return tuple(reversed(distinct.values()))[:_HINTS]


def _of_log(task: Task, log: TuningLog, toolchain: Described) -> Iterator[Point]:
    mode = task.kernel.mode
    target, wanted = keys.of_target(task.kernel.target), task.kernel.rule_name

    def usable(found: Measured) -> str | None:
        fits = found.rule == wanted and found.point.keys() == task.search.space.keys()
        return None if fits else "it is another rule's, or has other knobs"

    for other in of_kind(log, task.workload)[:_ASKED]:
        found = log.lookup(other.key, target, toolchain, mode=mode, usable=usable)
        if isinstance(found, Hit):
            yield found.record.point
