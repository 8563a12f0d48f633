"""How busy other programs keep the cores that this process may use.

Thread pools spin for a while after their work is done (TVM's about 150 ms, OpenMP's 200 ms), so a
glance at the machine between two measurements sees mostly our own threads.  What our own processes
used is therefore taken off what the cores did.
"""

import time
from typing import Self

import psutil

from hybridc.compiler.hardware import host

# Of one core.  Beside a program that takes so much, in turns of 10 ms, medians of calls on all
# cores move by 1 %, as much as is taken for noise everywhere; beside half a core by 5 %, and beside
# a whole one they double (benchmarks/disturbance.py, 2 cores, Zen 3).
QUIET = 0.25
# Of every ten calls one is late from there on: nine are within 1.12 of the median beside a tenth of
# a core, 2.4 beside a quarter.  That is what late calls, and sums of all calls, are made of.
QUIET_FOR_ALL = 0.1
# The kernel counts in ticks of 10 ms; over a shorter time a tick more or less would decide.
INTERVAL = 0.3
_REST = 0.1  # cores; threads that use less are not spinning
_GLANCE = 0.05  # seconds
_PATIENCE = 1.0  # seconds


class Load:
    """Counts from its making on; `others` tells what has been used by then."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._all, self._own = _used_by_all(), used_by_us()

    def others(self) -> float:
        """Cores that other programs (or the hypervisor's other guests) kept busy, on average."""
        seconds = time.perf_counter() - self._start
        used = (_used_by_all() - self._all) - (used_by_us() - self._own)
        return max(0.0, used / seconds) if seconds else 0.0

    @classmethod
    def during(cls, seconds: float) -> Self:
        """The load of the next seconds, in which this thread sleeps."""
        watch = cls()
        time.sleep(seconds)
        return watch


def busy_cores() -> float:
    """Cores that other programs keep busy now; takes `INTERVAL` seconds."""
    return Load.during(INTERVAL).others()


def come_to_rest() -> None:
    """Wait until the threads of this process and of its children no longer spin, a second at most.

    What spins after one measurement takes cores from the next.
    """
    end = time.perf_counter() + _PATIENCE
    while time.perf_counter() < end:
        before, start = used_by_us(), time.perf_counter()
        time.sleep(_GLANCE)
        if used_by_us() - before < _REST * (time.perf_counter() - start):
            return


def _used_by_all() -> float:
    """Seconds that the cores which this process may use have been busy, since the machine started.

    Time that a hypervisor gave to others counts: it was not there for us.
    """
    cores = psutil.cpu_times(percpu=True)
    allowed = [cores[cpu] for cpu in host.allowed_cpus() if cpu < len(cores)]
    return sum(float(c.user + c.nice + c.system + c.irq + c.softirq + c.steal) for c in allowed)


def used_by_us() -> float:
    """Seconds that this process, its children, and those that they waited for have used."""
    here = psutil.Process()
    return sum(map(seconds_of, [here, *here.children(recursive=True)]))


def seconds_of(process: psutil.Process) -> float:
    """Seconds of CPU that a process has used, with its children that have ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # ended meanwhile: its parent's count has it once it is waited for
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
