"""What a monitor saw: curves for charts, figures for text and JSON."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from hybridc.compiler.monitors.source import Channel
from hybridc.compiler.text.tables import table
from hybridc.compiler.text.units import format_duration, format_size

# Points of a curve in JSON and on a page: a wide window has about as many pixels to draw them on.
_DRAWN = 600

Points = list[tuple[float, float]]


@dataclass
class Series:
    """What one channel told: points to draw, and figures of every reading, drawn or not.

    The mean is over time: a reading that stands for longer counts for more.
    """

    channel: Channel
    times: "array[float]" = field(default_factory=lambda: array("d"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    low: float = float("inf")
    high: float = float("-inf")
    _sum: float = 0.0
    _seconds: float = 0.0

    @property
    def mean(self) -> float:
        """The mean over time."""
        return self._sum / self._seconds if self._seconds else self.values[-1]

    def add(self, when: float, value: float, seconds: float) -> None:
        """Take a reading at a time since the monitor began; it stands for the `seconds` before."""
        self.times.append(when)
        self.values.append(value)
        self.low, self.high = min(self.low, value), max(self.high, value)
        self._sum += value * seconds
        self._seconds += seconds

    def thin(self) -> None:
        """Let go of every second point."""
        self.times, self.values = self.times[1::2], self.values[1::2]

    def points(self, most: int = _DRAWN) -> Points:
        """Seconds and values; of more than `most`, the means of neighbours."""
        step = -(-len(self.times) // most)
        return [
            (self.times[min(at + step, len(self.times)) - 1], fmean(self.values[at : at + step]))
            for at in range(0, len(self.times), step or 1)
        ]

    def show(self, value: float) -> str:
        """A value with its unit, for people."""
        return show(value, self.channel.unit)

    def to_json(self) -> dict[str, Any]:
        """The series as JSON data; its curve is thinned."""
        points = self.points()
        channel = self.channel
        return {
            "group": channel.group,
            "name": channel.name,
            "unit": channel.unit,
            **self.figures(),
            "times_s": [round(when, 4) for when, _ in points],
            "values": [float(f"{value:.6g}") for _, value in points],
        }

    def figures(self) -> dict[str, float]:
        """The least, the mean and the greatest of all readings."""
        return {"min": self.low, "mean": self.mean, "max": self.high}


@dataclass(frozen=True)
class Mark:
    """A step of the work, in seconds since the monitor began."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Monitored:
    """What a monitor saw in so many `seconds`.

    `absent` says by source why it is not there; `joules` is the energy by device, where that is
    counted; `interval` is what was asked for, in seconds, and `cost` the share of one core that
    sampling took.  `began` is the beginning in nanoseconds of `time.perf_counter_ns`, as the spans
    of a timeline count, and `marks` are the steps of what was watched.
    """

    series: tuple[Series, ...]
    absent: Mapping[str, str]
    joules: Mapping[str, float]
    seconds: float
    interval: float
    cost: float
    began: int = 0
    marks: tuple[Mark, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON data, curves too; seconds, joules and the units of the series."""
        return {
            **self._conditions(),
            "series": [series.to_json() for series in self.series],
            "marks": [vars(mark) for mark in self.marks],
        }

    def brief(self) -> dict[str, Any]:
        """The figures without the curves, as JSON data."""
        named = [
            {"group": s.channel.group, "name": s.channel.name, "unit": s.channel.unit}
            for s in self.series
        ]
        figures = [series.figures() for series in self.series]
        return {
            **self._conditions(),
            "series": [{**n, **f} for n, f in zip(named, figures, strict=True)],
        }

    def _conditions(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "interval_s": self.interval,
            "cost": self.cost,
            "absent": dict(self.absent),
            "energy_j": dict(self.joules),
        }

    def text(self) -> str:
        """Figures as a table, and what is not there."""
        rows = [
            (
                series.channel.group,
                series.channel.name,
                *(series.show(value) for value in series.figures().values()),
            )
            for series in self.series
        ]
        return "\n".join(
            [
                self.sentence(),
                table(("", "", "min", "mean", "max"), rows),
                *(f"energy {name} {joules:.4g} J" for name, joules in self.joules.items()),
                *(f"not monitored: {name}: {why}" for name, why in self.absent.items()),
            ]
        )

    def sentence(self) -> str:
        """`monitored for 4.2 s every 100 ms; sampling took 0.31 % of a core`."""
        return (
            f"monitored for {format_duration(self.seconds)} every "
            f"{format_duration(self.interval)}; sampling took {self.cost:.2%} of a core"
        )


def show(value: float, unit: str) -> str:
    """A value with its unit, for people: `1.5 GB`, `0.82 cores`, `97 %`."""
    if unit == "B":
        return format_size(value)
    if unit == "cores":
        return f"{value:.2f} {unit}"
    return f"{value:.0f} {unit}" if abs(value) >= 100 or unit == "%" else f"{value:.3g} {unit}"
