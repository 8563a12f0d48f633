"""Libraries of one kernel on the same arguments: their answers checked, their times taken in turn.

In each round every library has its turn, so that what disturbs the machine disturbs all of them,
and the ratio within a round says more than either time.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybridc.compiler.tuning.candidates.arguments import Arguments
from hybridc.compiler.tuning.kernel import Kernel

Run = Callable[[], object]
ROUNDS = 25
_SAMPLE = 4e-3  # seconds of one turn


@dataclass(frozen=True)
class Times:
    """Seconds of one call in each round, by the library's name."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """The median time of a library."""
        return statistics.median(self.seconds[name])

    def ratios(self, name: str, other: str) -> list[float]:
        """One library's time as a ratio to another's, within each round."""
        pairs = zip(self.seconds[name], self.seconds[other], strict=True)
        return [one / two for one, two in pairs]

    def ratio(self, name: str, other: str) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios(name, other))


def measured(kernel: Kernel, libraries: Mapping[str, Path], folder: Path) -> Times:
    """Check every library against the unscheduled kernel, then time them in turn.

    Raises ValueError, in one line, where one of them computes something else.
    """
    arguments = Arguments(kernel)
    wanted = folder / "wanted.npz"
    plain = folder / "unscheduled.so"
    kernel.compile(None, plain)
    _answer(arguments, plain, wanted)
    runs: dict[str, Run] = {}
    for name, library in libraries.items():
        runs[name] = arguments.call(str(library))
        arguments.reset()
        runs[name]()
        if wrong := arguments.difference(str(wanted)):
            raise ValueError(f"{kernel.name}: {name} is wrong: {wrong}")
    return in_turn(runs)


def in_turn(runs: Mapping[str, Run], least: float = 0.0) -> Times:
    """Time functions in turn, for `least` seconds or longer."""
    counts = {name: _count(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    rounds = 0
    while rounds < ROUNDS or time.perf_counter() - start < least:
        for name, run in runs.items():
            seconds[name].append(_time(run, counts[name]))
        rounds += 1
    return Times(seconds)


def _answer(arguments: Arguments, library: Path, wanted: Path) -> None:
    run = arguments.call(str(library))
    arguments.reset()
    run()
    np.savez(wanted, *(array.reshape(-1).view(np.uint8) for array in arguments.arrays))


def _count(run: Run) -> int:
    """Calls in one turn."""
    run()
    return max(1, round(_SAMPLE / max(_time(run, 3), 1e-7)))


def _time(run: Run, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count
