"""The winner of a kernel beside its default, measured again in turn.

The fastest of many noisy times is partly luck.  Measured once more, in the same moments as the
default, the luck is gone: a point that only seemed faster then loses, since all of a point's
samples count together.
"""

from collections import Counter

from hybridc.compiler.interfaces import Point
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.lookup import Hit
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning.tasks import Task

# Winners that are tried in turn; each may lose to one that was not measured again yet.
MOST = 4
# Records of a point that was measured again.
_CONFIRMED = 2


def contenders(task: Task, log: TuningLog, target: Described, toolchain: Described) -> list[Point]:
    """The default and the winner; none where they are one, or the winner is confirmed already."""
    mode = task.kernel.mode
    found = log.lookup(task.workload.key, target, toolchain, mode=mode, usable=task.usable)
    if not isinstance(found, Hit):
        return []
    default, winner, key = task.default, found.record.point, task.search.key
    if default is None or default.seconds is None or key(winner) == key(default.point):
        return []
    times = Counter(
        key(each.point)
        for each in log.records(task.workload.key, target.key, toolchain.key)
        if each.rule == found.record.rule and each.mode == mode and task.search.contains(each.point)
    )
    return [] if times[key(winner)] >= _CONFIRMED else [default.point, winner]
