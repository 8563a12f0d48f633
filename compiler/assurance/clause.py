"""One limit, beside what was measured."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from hybridc.compiler.assurance.confidence import Estimate


@dataclass(frozen=True)
class Clause:
    """A limit, None where there is none, and what was measured, None where nothing was.

    `higher` tells whether the limit is a least or a most; `show` writes its numbers.  `disturbed`
    is what kept the machine from what was measured, if anything did.
    """

    name: str
    limit: float | None
    found: Estimate | None
    higher: bool
    show: Callable[[float], str] = "{:.6g}".format
    disturbed: str = ""

    @property
    def bound(self) -> float:
        """The worse end of what was measured; NaN, which keeps no limit, where nothing was."""
        if self.found is None:
            return math.nan
        return self.found.low if self.higher else self.found.high

    @property
    def kept(self) -> bool:
        """Whether the limit holds beyond the doubt that the bounds leave."""
        return self.limit is None or self._holds(self.bound)

    @property
    def doubtful(self) -> bool:
        """Whether the value itself keeps the limit, and its bound does not."""
        return self.found is not None and not self.kept and self._holds(self.found.value)

    @property
    def wanted(self) -> str:
        """`at most 5 ms`."""
        shown = "-" if self.limit is None else self.show(self.limit)
        return f"at {'least' if self.higher else 'most'} {shown}"

    @property
    def value(self) -> str:
        """What was measured, without its bounds; `-` where nothing was."""
        return "-" if self.found is None else self.show(self.found.value)

    def text(self) -> str:
        """`latency: wanted at most 5 ms, measured 4.9 ms, but perhaps 5.3 ms`."""
        wanted = f"{self.name}: wanted {self.wanted}"
        if self.found is None:
            return f"{wanted}, not measured"
        told = f"{wanted}, measured {self._shown(self.found.value)}"
        if self.kept:
            return told
        told += f", {self._doubt()}" if self.doubtful else ""
        return f"{told}, while {self.disturbed}" if self.disturbed else told

    def _doubt(self) -> str:
        """Why a limit is not kept that the value itself keeps."""
        if math.isinf(self.bound):
            return "but in too few calls or samples to be sure"
        return f"but perhaps {self._shown(self.bound)}"

    def _shown(self, value: float) -> str:
        """A number; where it misses the limit by less than its digits show, that is said."""
        shown = self.show(value)
        if self.limit is None or self._holds(value) or shown != self.show(self.limit):
            return shown
        return f"{shown} (a little {'less' if self.higher else 'more'})"

    def _holds(self, value: float) -> bool:
        assert self.limit is not None
        return value >= self.limit if self.higher else value <= self.limit
