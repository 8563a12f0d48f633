"""Which of the samples calls are timed on: the one that takes longest, if that is not the first.

Work may depend on data (loops, branches, how many elements are not zero) and on open sizes.  A
limit on time is a promise for each of the samples, so it is kept where it is hardest to keep.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hybridc.compiler.model import Feed
from hybridc.compiler.runtime.session import InferenceSession

# Samples that are called again, of those that took longest when they were verified; how often, and
# seconds that finding the slowest takes at most, beside three calls.
_CANDIDATES, _ROUNDS, _SECONDS = 8, 3, 1.0
_SHARE = 0.1  # of a budget that is left
# What takes so many times as long as the first is no noise: the fastest of several calls of one
# kernel differ by 1 % on a quiet machine (benchmarks/disturbance.py).
_CLEARLY = 1.02


@dataclass
class Slowest:
    """The sample that calls are timed on, found once for all artifacts that are compared by it.

    `seen` holds seconds of single calls of all samples, where somebody made these anyway.
    """

    seen: list[float] = field(default_factory=list[float])
    found: Feed | None = None
    told: str = ""

    def of(self, session: InferenceSession, feeds: Sequence[Feed], left: float | None) -> Feed:
        """The slowest of the feeds; `left` are the seconds of a budget."""
        if self.found is None:
            place = self._place(session, feeds, left) if len(feeds) > 1 else 0
            self.found = feeds[place]
            self.told = f"sample {place + 1} of {len(feeds)}" if len(feeds) > 1 else ""
        return self.found

    def _place(self, session: InferenceSession, feeds: Sequence[Feed], left: float | None) -> int:
        end = time.perf_counter() + min(_SECONDS, math.inf if left is None else _SHARE * left)
        seen = dict(enumerate(self.seen)) if len(self.seen) == len(feeds) else {}
        # The first call of all takes longer for being the first: here, or when samples were seen.
        fastest = {0: _seconds(session, feeds[0])}
        fastest[0] = min(fastest[0], _seconds(session, feeds[0]))
        # Nobody called them: those of most elements come first, for the time may not do for all.
        for place in () if seen else sorted(range(len(feeds)), key=lambda at: -_size(feeds[at])):
            if time.perf_counter() < end or not seen:
                seen[place] = _seconds(session, feeds[place])
        others = sorted((place for place in seen if place), key=lambda at: -seen[at])
        fastest |= {place: seen[place] for place in others[:_CANDIDATES]}
        for _ in range(_ROUNDS):
            for place, least in fastest.items():
                if time.perf_counter() < end:
                    fastest[place] = min(least, _seconds(session, feeds[place]))
        longest = max(fastest, key=lambda at: fastest[at])
        return longest if fastest[longest] > _CLEARLY * fastest[0] else 0


def _seconds(session: InferenceSession, feed: Feed) -> float:
    start = time.perf_counter()
    session.run(None, feed)
    return time.perf_counter() - start


def _size(feed: Feed) -> int:
    """The elements of all inputs together."""
    return sum(int(np.size(each)) for each in feed.values())
