"""Whether the machine let what was timed run alone, and at one pace.

Other programs, other guests of a hypervisor and changing clocks only ever add time, and seldom a
little: threads that wait for each other wait for a whole time slice of somebody else.  A limit that
holds all the same, holds; of one that does not, such times say nothing.
"""

import hashlib
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.hardware import host, load
from hybridc.compiler.hardware.load import Load

# The same computation takes as much longer at a slower clock; what changes less is noise: paces of
# a quiet machine differ by 0.2 %, with some load by 2 % (benchmarks/disturbance.py, 2 cores of a
# Zen 3).
STEADY = 1.1
# A fixed computation that fits any cache and takes about 50 us; the fastest of some runs tells the
# clock, since nothing makes it faster.
_BLOCK, _RUNS = bytes(2**16), 20


@dataclass(frozen=True)
class Conditions:
    """What the machine did beside the calls that were timed.

    `busy` are the cores that other programs (or a hypervisor's other guests) kept busy on average,
    `free` those that the calls leave idle; our threads were `preempted` so often in a second.
    `pace` is the seconds of a fixed computation on one core, `drift` how many times as long it
    took in the slowest moment as in the fastest.  `bearable` are the busy cores that leave what the
    calls were timed for as it is.
    """

    busy: float
    free: int
    preempted: float
    pace: float
    drift: float
    bearable: float = load.QUIET

    @property
    def quiet(self) -> bool:
        """Whether times that were taken say how long calls take."""
        return not self.text()

    def text(self) -> str:
        """`other programs kept 1.4 cores busy`; nothing where all was quiet."""
        found = []
        if self.busy > max(self.bearable, float(self.free)):
            found.append(f"other programs kept {self.busy:.1f} cores busy")
        if self.drift > STEADY:
            found.append(f"the clock changed by {self.drift - 1:.0%}")
        return " and ".join(found)

    def to_json(self) -> dict[str, Any]:
        """As JSON data; the pace in microseconds."""
        return {
            "quiet": self.quiet,
            "busy_cores": self.busy,
            "free_cores": self.free,
            "preemptions_per_second": self.preempted,
            "pace_us": self.pace * 1e6,
            "drift": self.drift,
            "bearable_cores": self.bearable,
        }

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> "Conditions":
        """What `to_json` told.  Raises KeyError, TypeError or ValueError if it is no such."""
        return cls(
            busy=float(fields["busy_cores"]),
            free=int(fields["free_cores"]),
            preempted=float(fields["preemptions_per_second"]),
            pace=float(fields["pace_us"]) / 1e6,
            drift=float(fields["drift"]),
            bearable=float(fields.get("bearable_cores", load.QUIET)),
        )


class Watch:
    """Watches the machine from its making on, for calls that run on so many threads.

    Others may keep `bearable` cores busy.
    """

    def __init__(self, threads: int, bearable: float = load.QUIET) -> None:
        self._free, self._bearable = _free(threads), bearable
        self._paces = [_pace()]
        self._switches, self._start, self._load = _switches(), time.perf_counter(), Load()

    def glance(self) -> None:
        """Look at the clock in between; takes a millisecond, two where it seems to be slower.

        A slower clock is so for longer than somebody else's turn on the core, in which a look may
        fall: in three of 18 watches beside another program, by 13 to 25 %.
        """
        pace = _pace()
        if pace > STEADY * min(self._paces):
            pace = min(pace, _pace())
        self._paces.append(pace)

    def conditions(self) -> Conditions:
        """What was seen until now.  Over less time than the kernel counts in, nobody was busy."""
        seconds, switches = time.perf_counter() - self._start, _switches() - self._switches
        busy = self._load.others() if seconds >= load.INTERVAL else 0.0
        self.glance()
        pace, slowest = min(self._paces), max(self._paces)
        preempted, drift = switches / seconds, slowest / pace
        return Conditions(busy, self._free, preempted, pace, drift, self._bearable)


def wait(threads: int, seconds: float, bearable: float = load.QUIET) -> None:
    """Wait for other programs to leave the machine to so many threads, for so long at most."""
    end, most = time.perf_counter() + seconds, max(bearable, float(_free(threads)))
    while time.perf_counter() < end and load.busy_cores() > most:
        pass


def _free(threads: int) -> int:
    return max(0, host.cores() - threads)


def _pace() -> float:
    """Seconds of the fixed computation."""
    found = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        hashlib.sha256(_BLOCK).digest()
        found.append(time.perf_counter() - start)
    return min(found)


def _switches() -> int:
    """How often threads of this process had to give up a core that they still wanted."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
