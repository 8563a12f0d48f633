"""Correct times for the machine's changing pace, which a kernel that stays the same shows.

The clock falls as the chip warms up, and other guests come and go.  The baseline is measured now
and then, and the times between are set against its reference, so that points measured an hour
apart can be compared.  Whatever disturbs a reading only adds time: of the two around a moment, the
lesser one tells the pace.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

# Two medians of the baseline differ by so much on a machine that keeps its pace; to correct by
# less would add noise instead of taking it away.
NOISE = 0.01
# Where the pace differs by more, what was measured is measured again: kernels that compute and
# kernels that wait for memory do not change by the same factor.
UNSTEADY = 0.1


@dataclass
class Drift:
    """Readings of the baseline over time, as shares of the reference; the first sets it if none."""

    reference: float | None = None
    noise: float = NOISE
    _when: list[float] = field(default_factory=list[float])
    _pace: list[float] = field(default_factory=list[float])

    def read(self, when: float, samples: Sequence[float]) -> None:
        """Note the baseline's samples at a time; times only ever grow."""
        seconds = median(samples)
        if self.reference is None:
            self.reference = seconds
        self._when.append(when)
        self._pace.append(seconds / self.reference)

    def pace(self, when: float) -> float:
        """How many times as long things take then as at the reference; 1 within the noise."""
        if not self._when:
            return 1.0
        after = bisect_left(self._when, when)
        pace = min(self._pace[max(0, after - 1) : after + 1])
        return pace if abs(pace - 1) > self.noise else 1.0

    def corrected(self, when: float, samples: Sequence[float]) -> tuple[float, ...]:
        """The samples as they would have been at the reference's pace.

        A baseline that takes much longer on both sides was disturbed, which says little of what was
        measured between: such samples are corrected by UNSTEADY at most, lest a slow point looks
        fast.
        """
        pace = min(self.pace(when), 1 + UNSTEADY)
        return tuple(sample / pace for sample in samples)

    @property
    def steady(self) -> bool:
        """Whether the last two readings were near the reference; without readings all is."""
        return all(abs(pace - 1) <= UNSTEADY for pace in self._pace[-2:])

    @property
    def overstated(self) -> bool:
        """Whether the reference was disturbed: the last two readings are far below it."""
        return len(self._pace) > 1 and max(self._pace[-2:]) < 1 - UNSTEADY

    def lower(self) -> None:
        """Set the reference, and all readings with it, against the last two."""
        assert self.reference is not None
        share = min(self._pace[-2:])
        self.reference *= share
        self._pace = [pace / share for pace in self._pace]

    @property
    def last(self) -> float:
        """When the last reading was."""
        return self._when[-1] if self._when else float("-inf")

    @property
    def worst(self) -> float:
        """The pace farthest from 1, less 1: 0.03 where things took 3 % longer, -0.03 less.

        One reading alone that took longer is no pace.
        """
        paces = map(min, self._pace, self._pace[1:] or self._pace)
        return max((pace - 1 for pace in paces), key=abs, default=0.0)
