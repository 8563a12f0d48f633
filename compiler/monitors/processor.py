"""How busy the cores are, and how many of them this process and its children use."""

from collections.abc import Sequence

import psutil

from hybridc.compiler.monitors.source import Channel
from hybridc.compiler.processes.process_tree import ProcessTree


class Processor:
    """Busy share of every core, and cores' worth of work of the process tree."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        self._busy = _busy()
        self._used = tree.seconds()
        self._owed = 0.0
        count = len(self._busy)
        self.channels: Sequence[Channel] = (
            Channel("CPU", "this process tree", "cores", rate=True, most=count),
            Channel("CPU", "whole machine", "cores", rate=True, most=count),
            *(
                Channel("cores", f"core {index}", "%", rate=True, most=100)
                for index in range(count)
            ),
        )

    def read(self, seconds: float) -> Sequence[float | None]:
        """Shares since the reading before; time that a hypervisor gave to others counts as busy.

        A child is found up to a second after it began, and one that lived shortly is counted when
        its parent has waited for it: what comes so at once, more than the cores can have done, is
        told over the next readings.
        """
        used, busy = self._tree.seconds(), _busy()
        spent = [max(0.0, now - then) for now, then in zip(busy, self._busy, strict=True)]
        self._owed = max(0.0, self._owed + used - self._used)
        self._used, self._busy = used, busy
        if not seconds:
            return [None] * len(self.channels)
        shares = [min(1.0, each / seconds) for each in spent]
        own = min(self._owed, sum(shares) * seconds)
        self._owed -= own
        return [own / seconds, sum(shares), *(100 * share for share in shares)]

    def totals(self) -> dict[str, float]:
        """Nothing: time is no energy."""
        return {}


def _busy() -> list[float]:
    cores = psutil.cpu_times(percpu=True)
    return [float(c.user + c.nice + c.system + c.irq + c.softirq + c.steal) for c in cores]
