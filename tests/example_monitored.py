"""What a monitor may have seen, for the tests of what is made of it."""

import math

from hybridc.compiler.monitoring.monitored import Mark, Monitored, Series
from hybridc.compiler.monitors.source import Channel

STEPS = ("load", "reference", "passes", "tune", "passes", "build", "verify", "measure")


def series(group: str, name: str, unit: str, values: list[float], most: float | None) -> Series:
    """Readings a tenth of a second apart."""
    made = Series(Channel(group, name, unit, most=most))
    for index, value in enumerate(values):
        made.add(index / 10, value, 0.1 if index else 0.0)
    return made


def make(cores: int = 4, count: int = 120) -> Monitored:
    """Twelve seconds of work with some steps."""
    wave = [0.5 + 0.5 * math.sin(index / 9) for index in range(count)]
    busy = [
        series("cores", f"core {core}", "%", [100 * w * (core + 1) / cores for w in wave], 100)
        for core in range(cores)
    ]
    found = (
        series("CPU", "this process tree", "cores", [w * cores * 0.7 for w in wave], cores),
        series("CPU", "whole machine", "cores", [w * cores for w in wave], cores),
        *busy,
        series("memory", "this process tree", "B", [3e8 + 2e8 * w for w in wave], 2.4e10),
        series("memory", "whole machine", "B", [4e9 + 2e8 * w for w in wave], 2.4e10),
        series("power", "package-0", "W", [40 + 100 * w for w in wave], None),
    )
    length = count / 10
    each = length / len(STEPS)
    marks = tuple(Mark(n, i * each, (i + 0.95) * each) for i, n in enumerate(STEPS))
    return Monitored(
        found,
        {"GPU": "no NVIDIA GPU: Driver Not Loaded"},
        {"package-0": 1234.5},
        length,
        0.1,
        0.0042,
        marks=marks,
    )
