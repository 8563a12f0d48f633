"""What a source of samples is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class AbsentError(Exception):
    """The machine does not have a source; the message says why, for people."""


@dataclass(frozen=True)
class Channel:
    """One number that a source reads: its group (a chart), name and unit.

    A `rate` is the mean since the reading before, and says nothing in the first reading.  `most`
    is what the number cannot exceed, if that is known.
    """

    group: str
    name: str
    unit: str
    rate: bool = False
    most: float | None = None


class Source(Protocol):
    """Reads some numbers at once; making one raises AbsentError if the machine has none."""

    @property
    def channels(self) -> Sequence[Channel]:
        """What it reads, in the order of `read`."""
        ...

    def read(self, seconds: float) -> Sequence[float | None]:
        """The numbers now; `seconds` have passed since the reading before (0 at the first).

        None if a number cannot be told just now.
        """
        ...

    def totals(self) -> dict[str, float]:
        """What was used up since the source was made, in joules by device; often nothing."""
        ...
