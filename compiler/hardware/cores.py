"""How many threads this process should run: what affinity, cgroups and hyper-threads leave.

`groups` finds the cgroups, of other controllers too.

Every path is looked up below a root, so that tests can bring machines of their own.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath

_Mount = tuple[str, str, str]  # mount point, the cgroup that stands there, file system and options


def usable(root: Path, allowed: frozenset[int]) -> int:
    """Threads that a dense kernel profits from on the `allowed` CPUs.

    Hyper-threads share the units that multiply, so each core counts once.  A quota is rounded
    down: one thread more than it would use up the quota early, and then all threads stand still
    for the rest of the period (100 ms, mostly).
    """
    cores = len({_siblings(root, cpu) for cpu in allowed})
    limit = min(_quotas(root), default=None)
    return max(1, cores if limit is None else min(cores, int(limit)))


def _siblings(root: Path, cpu: int) -> frozenset[int]:
    """The CPUs of a core; where Linux does not say, each CPU is a core."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    # The second is what Linux before 5.1 calls the first.
    listed = read(topology / "core_cpus_list") or read(topology / "thread_siblings_list")
    return frozenset(_cpus(listed)) | {cpu}


def _cpus(listed: str) -> Iterator[int]:
    """The numbers in a list such as `0-3,8`; nothing where it is not of that form."""
    for part in listed.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last.isdigit() or not last):
            yield from range(int(first), int(last or first) + 1)


def _quotas(root: Path) -> Iterator[Fraction]:
    """The CPU quotas of this process's cgroups and of those around them, in cores."""
    for place in groups(root, "cpu"):
        yield from _quota(place)


def groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's cgroups, and of those around them, that have a controller."""
    mounts = list(_mounts(root))
    for line in read(root / "proc/self/cgroup").splitlines():
        _, held, group = [*line.split(":", 2), "", ""][:3]
        shown = [mount for mount in mounts if _holds(controller, mount[2], held)]
        yield from _folders(root, shown, group)


def _mounts(root: Path) -> Iterator[_Mount]:
    """Where cgroups are mounted, by /proc/self/mountinfo (see proc(5))."""
    for line in read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) > 4 and len(kind) > 2 and kind[0] in ("cgroup", "cgroup2"):
            yield fields[4], fields[3], kind[0] if kind[0] == "cgroup2" else kind[2]


def _folders(root: Path, mounts: list[_Mount], group: str) -> Iterator[Path]:
    """The folder of a cgroup and of each that it lies in, as far as this process sees them."""
    for point, shown, _ in mounts:
        inside = PurePosixPath(group)
        # In a container the mount shows a part of the tree, and the group may lie outside of it.
        known = inside.is_relative_to(shown)
        below = inside.relative_to(shown) if known else PurePosixPath()
        for part in (below, *below.parents):
            yield root / point.lstrip("/") / part


def _holds(controller: str, kind: str, controllers: str) -> bool:
    """Whether a mount is that of the hierarchy with these controllers, and one is among them.

    `kind` is `cgroup2`, whose controllers are the empty string, or the options of version 1.
    """
    if kind == "cgroup2":
        return not controllers
    return controller in controllers.split(",") and controller in kind.split(",")


def _quota(folder: Path) -> Iterator[Fraction]:
    """The quota that a folder of version 2 or 1 sets, if it does."""
    both = read(folder / "cpu.max").split()
    if not both:
        both = [read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if len(both) == 2 and all(number.isdigit() and int(number) for number in both):
        yield Fraction(int(both[0]), int(both[1]))


def read(path: Path) -> str:
    """The text of a file; empty if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
