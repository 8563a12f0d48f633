"""How much memory this process may still take: the machine's, its cgroups' and by its own limits.

Every path is looked up below a root, so that tests can bring machines of their own.
"""

import resource
from collections.abc import Iterator
from pathlib import Path

from hybridc.compiler.errors import InputError
from hybridc.compiler.hardware.cores import groups, read
from hybridc.compiler.text.units import format_size

_LIMITS = {resource.RLIMIT_AS: "VmSize", resource.RLIMIT_DATA: "VmData"}
# What a cgroup of version 2 or 1 may hold, and what it holds.
_FILES = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
# Files in memory, which make room where it is wanted.
_CACHED = ("active_file", "inactive_file")


def check(needed: int, what: str) -> None:
    """Raise InputError where there is no memory for `what`, which needs so many bytes at least.

    The system would end the process as it writes there, or another one in its place.
    """
    found = left()
    if found is not None and needed > found:
        raise InputError(
            f"{what} {format_size(needed)} of memory, and this process can have"
            f" {format_size(max(0, found))}: give smaller sizes (--shape)"
        )


def left(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take, None where nothing tells."""
    found = [*_of_machine(root), *_by_limits(root)]
    found += [size for folder in groups(root, "memory") for size in _of_group(folder)]
    return min(found, default=None)


def _of_machine(root: Path) -> Iterator[int]:
    told = _numbers(read(root / "proc/meminfo"), 2**10)
    if "MemAvailable" in told:
        yield told["MemAvailable"] + told.get("SwapFree", 0)


def _by_limits(root: Path) -> Iterator[int]:
    told = _numbers(read(root / "proc/self/status"), 2**10)
    for kind, held in _LIMITS.items():
        most, _ = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY and held in told:
            yield most - told[held]


def _of_group(folder: Path) -> Iterator[int]:
    for most, held in _FILES:
        limit, now = (read(folder / name).strip() for name in (most, held))
        if limit.isdigit() and now.isdigit():
            cached = _numbers(read(folder / "memory.stat"), 1)
            yield int(limit) - int(now) + sum(cached.get(name, 0) for name in _CACHED)


def _numbers(text: str, unit: int) -> dict[str, int]:
    """The numbers of lines such as `MemFree:  100 kB` or `file 100`."""
    rows = (line.replace(":", " ").split() for line in text.splitlines())
    return {row[0]: int(row[1]) * unit for row in rows if len(row) > 1 and row[1].isdigit()}
