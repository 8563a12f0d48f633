"""The run-off: a kernel's winner and its default measured again, in turn.

The fastest of many noisy times is partly luck.  Measured once more, in the same moments as the
default, the luck is gone: a point that only seemed faster then loses.  Where the second time is far
from the first, a third one tells which of them was luck, or was disturbed.
"""

from statistics import median

from hybridc.compiler.interfaces import Point
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.lookup import Hit
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.log.winner import contested
from hybridc.compiler.tuning.tasks import Task

# Rounds, in each of which a winner is measured: it may lose to one that was not measured again yet.
MOST = 8
# Records of a point that was measured again.
_CONFIRMED = 2


def contenders(task: Task, log: TuningLog, target: Described, toolchain: Described) -> list[Point]:
    """The default and the winner, which may be one; none where there is no doubt of them."""
    mode = task.kernel.mode
    found = log.lookup(task.workload.key, target, toolchain, mode=mode, usable=task.usable)
    if not isinstance(found, Hit):
        return []
    default, winner, key = task.default, found.record.point, task.search.key
    if default is None or default.seconds is None:
        return []
    visits: dict[tuple[int, ...], list[float | None]] = {}
    for each in log.records(task.workload.key, target.key, toolchain.key):
        mine = each.rule == found.record.rule and each.mode == mode
        if mine and task.search.contains(each.point):
            good = each.verdict is Verdict.OK
            visits.setdefault(key(each.point), []).append(median(each.seconds) if good else None)
    points = {key(point): point for point in (default.point, winner)}
    seen = len(points) == 1 or len(visits.get(key(winner), ())) >= _CONFIRMED
    doubtful = any(contested(list(filter(None, visits.get(each, ())))) for each in points)
    return list(points.values()) if doubtful or not seen else []
