"""Calls of sessions, timed on their GPU by its own clock: what a call adds to a model there.

Many calls are one CUDA graph, so that neither Python nor launches count, nor copies of inputs and
results.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from hybridc.compiler.cuda.graphs import Graphs
from hybridc.compiler.cuda.resident import Resident
from hybridc.compiler.errors import HybridcError

_WARM = 3  # calls
_GRAPH, _MOST = 1e-3, 200  # seconds of calls in one graph, and how many at most
_SHORT, _LONG = 0.05, 20  # seconds after which few samples are enough, and as many as otherwise
FEW = 5


def in_turns(calls: Sequence[tuple[Resident, Any, tuple[Any, ...]]]) -> list[tuple[float, ...]]:
    """Seconds of a call of each `main` with what it is given, in turns.

    They are given as `InferenceSession.on_device` tells.  Of what takes long there are fewer
    samples, at least five.
    """
    takes = [_sampler(*call) for call in calls]
    found: list[list[float]] = [[] for _ in takes]
    for number in range(_LONG):
        spent = 0.0
        for take, samples in zip(takes, found, strict=True):
            seconds, each = take()
            samples.append(each)
            spent += seconds
        if number + 1 >= FEW and spent > _SHORT:
            break
    return [tuple(samples) for samples in found]


def _sampler(place: Resident, main: Graphs, given: Sequence[Any]) -> Callable[[], Any]:
    """Takes a sample: the seconds that it took, and those of one call."""
    link = place.link

    def several(number: int) -> None:
        for _ in range(number):
            main.main(*given)  # what it allocates is free for the next

    with place.working():
        several(_WARM)
        first = link.timed(lambda: several(1), 1)
        number = int(min(_MOST, max(1, _GRAPH / max(first, 1e-9))))
        work: Callable[[], object] = lambda: several(number)  # noqa: E731
        with suppress(HybridcError, RuntimeError):  # what cannot be recorded is timed as it is
            work = main.record(work)[0].replay

    def take() -> tuple[float, float]:
        with place.working():
            work()  # what launching takes is over before this is
            seconds = link.timed(work, 1)
        return seconds, seconds / number

    return take
