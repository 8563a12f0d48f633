"""When to stop timing: the median is known well enough, or the point has lost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

# Quantile of the normal distribution that leaves 2.5 % on each side.
_Z = 1.96
# With fewer samples no two of them enclose the median with 95 %: 1 - 2 * 2**-6 is 97 %.
_LEAST = 6
# How many times its time a race may take to find samples that nothing disturbed.
_PATIENCE = 5

Sample = tuple[float, bool]  # seconds, and whether nothing else ran on our cores meanwhile
Take = Callable[[int], Sequence[Sample]]


@dataclass(frozen=True)
class Race:
    """The rules by which a candidate runs.

    It runs on until the 95 % confidence interval of its median, from end to end, is `width` of the
    median, or `seconds` are used up; it is out once the interval lies `margin` beyond the
    incumbent's time.  `sample` are the seconds that one sample takes at least: shorter calls are
    repeated within it.
    """

    width: float = 0.01
    margin: float = 0.02
    seconds: float = 0.15
    sample: float = 0.002
    block: int = 5

    def over(self, samples: Sequence[float], used: float, incumbent: float | None) -> bool:
        """Whether these samples, which took `used` seconds, say enough."""
        if incumbent and min(samples) > 3 * incumbent:
            return True  # no noise makes three out of one
        if len(samples) < _LEAST:
            return False
        low, high = interval(samples)
        if high - low <= self.width * low or used >= self.seconds:
            return True
        return incumbent is not None and low > (1 + self.margin) * incumbent

    def run(
        self, take: Take, clock: Callable[[], float], incumbent: float | None = None
    ) -> tuple[tuple[float, ...], bool]:
        """Take blocks of samples until the race is over; say also whether it was disturbed.

        `take(n)` gives n more samples, each with whether nothing else ran on our cores meanwhile.
        Others are left out, unless there are too few without them: then the race was disturbed.
        """
        start = clock()
        taken: list[Sample] = []
        while True:
            taken += take(self.block if taken else 1)
            clean = tuple(seconds for seconds, undisturbed in taken if undisturbed)
            used = clock() - start
            if clean and self.over(clean, used, incumbent):
                return clean, False
            if used >= _PATIENCE * self.seconds:
                few = len(clean) < _LEAST and 2 * len(clean) < len(taken)
                return (tuple(seconds for seconds, _ in taken) if few else clean), few

    def to_json(self) -> dict[str, Any]:
        """The rules as JSON data; `Race(**data)` reads them."""
        return dict(vars(self))


def interval(samples: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the median, whatever the distribution.

    By the ranks of the binomial distribution with p = 1/2 (W. J. Conover, Practical Nonparametric
    Statistics, 1999, §3.2), in its normal approximation; all samples where there are few.
    """
    ordered, count = sorted(samples), len(samples)
    low = int(count / 2 - _Z * sqrt(count) / 2)
    low = max(0, min(low, (count - 1) // 2))
    return ordered[low], ordered[count - 1 - low]
