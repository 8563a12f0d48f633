"""Limits of what this process may take, below those that it was started with."""

import resource
from pathlib import Path

from hybridc.compiler.hardware.cores import read

_STATUS = Path("/proc/self/status")


def seconds(more: int) -> None:
    """End this process after so many more seconds of the CPU."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + 1 + more)


def memory(more: int) -> None:
    """Refuse this process more than so many bytes beyond those that it holds.

    Without /proc, which tells what it holds, its memory is as limited as it was.
    """
    told = read(_STATUS).partition("VmData:")[2].split()
    if told:
        _lower(resource.RLIMIT_DATA, int(told[0]) * 2**10 + more)


def no_dump() -> None:
    """Write no core dump where this process crashes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _lower(kind: int, wanted: int) -> None:
    """Set a limit, where the one that nobody but root may raise is not lower."""
    _, most = resource.getrlimit(kind)
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(kind, (limit, most))
