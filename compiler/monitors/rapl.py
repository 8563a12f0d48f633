"""Energy of the CPU packages and their memory, by the counters that Linux shows (RAPL).

See the kernel's "Power Capping Framework": `energy_uj` counts microjoules and starts again at 0
beyond `max_energy_range_uj`.
"""

from collections.abc import Sequence
from pathlib import Path

from hybridc.compiler.monitors.source import AbsentError, Channel

_ROOT = Path("/sys/class/powercap")


class Rapl:
    """Watts of each package and of memory; a package's cores are part of it and not counted."""

    def __init__(self, root: Path = _ROOT) -> None:
        found = sorted(path.parent for path in root.glob("intel-rapl:*/name"))
        named = [(path, (path / "name").read_text().strip()) for path in found]
        counted = [(path, name) for path, name in named if name.startswith(("package", "dram"))]
        if not counted:
            raise AbsentError(f"no energy counters of the CPU (RAPL) under {root}")
        try:
            self._zones = [_Zone(path) for path, _ in counted]
        except (OSError, ValueError) as error:
            raise AbsentError(f"the CPU's energy counters cannot be read: {error}") from None
        self._names = _distinct([name for _, name in counted])
        self.channels: Sequence[Channel] = tuple(
            Channel("power", name, "W", rate=True) for name in self._names
        )

    def read(self, seconds: float) -> Sequence[float | None]:
        """Mean watts since the reading before."""
        used = [zone.advance() for zone in self._zones]
        return [joules / seconds if seconds else None for joules in used]

    def totals(self) -> dict[str, float]:
        """Joules of each zone."""
        return {name: zone.joules for name, zone in zip(self._names, self._zones, strict=True)}


class _Zone:
    """One counter; `joules` since it was opened."""

    def __init__(self, path: Path) -> None:
        self._counter = path / "energy_uj"
        self._range = int((path / "max_energy_range_uj").read_text())
        self._last = int(self._counter.read_text())
        self.joules = 0.0

    def advance(self) -> float:
        """Joules since the last call; a counter that fell has started again."""
        now = int(self._counter.read_text())
        used = (now - self._last if now >= self._last else now + self._range - self._last) / 1e6
        self._last = now
        self.joules += used
        return used


def _distinct(names: Sequence[str]) -> list[str]:
    """Names of zones, numbered where several sockets have the same."""
    return [
        f"{name} {index}" if names.count(name) > 1 else name for index, name in enumerate(names)
    ]
