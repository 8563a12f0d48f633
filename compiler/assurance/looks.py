"""How sure each look at a limit on time has to be, so that all of them together are as promised.

A measurement goes on until it is clear, and each look at it is a test of its own: ten looks at
95 % each take a limit to be kept that is not in up to 17 of 100 cases.  So the error that `LEVEL`
allows is split among all looks that there may be.  By the union bound that holds whatever depends
on what.  Most of it goes to the first look: calls that are clear at once are not timed for longer.
"""

from collections.abc import Iterator

from hybridc.compiler.assurance.confidence import LEVEL

MOST = 10  # looks at one measurement
_FIRST = 0.8  # of a measurement's share: of its first look; the others share the rest alike
# Of the error: of a first measurement, of those that replace it where the machine was disturbed,
# and of the same three where a stage is timed anew.
_MEASUREMENTS = (0.9, 0.03, 0.03, 0.02, 0.01, 0.01)
ANEW = len(_MEASUREMENTS) // 2  # the measurements before those of a stage that is timed anew


def levels(measurement: int) -> Iterator[float]:
    """The level of each look at the measurement of this number, from 0 on; they do not end."""
    error = (1 - LEVEL) * _MEASUREMENTS[measurement]
    yield 1 - error * _FIRST
    while True:
        yield 1 - error * (1 - _FIRST) / (MOST - 1)
