"""Calls timed on a GPU by its own clock: what a call of a session or kernel adds to a model there.

Many calls are one CUDA graph, so that neither Python nor launches count, nor copies of inputs and
results.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from hybridc.compiler.cuda.graphs import Graphs
from hybridc.compiler.cuda.link import Link
from hybridc.compiler.cuda.resident import Resident
from hybridc.compiler.errors import HybridcError

_WARM = 3  # calls
_GRAPH, _MOST = 1e-3, 200  # seconds of calls in one graph, and how many at most
_SHORT, _LONG = 0.05, 20  # seconds after which few samples are enough, and as many as otherwise
FEW = 5
Call = Callable[[], object]


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


def together(
    link: Link,
    call: Call,
    record: Callable[[Call], Call],
    refusals: tuple[type[Exception], ...] = (HybridcError, RuntimeError),
) -> tuple[Call, int]:
    """Calls of about a millisecond as one launch by `record`, and how many they are.

    Where recording ends in one of the `refusals` they are calls one after another.
    """
    first = link.timed(call, 1)
    number = int(min(_MOST, max(1, _GRAPH / max(first, 1e-9))))

    def calls() -> None:
        for _ in range(number):
            call()

    with suppress(*refusals):
        return record(calls), number
    return calls, number


def _sampler(place: Resident, main: Graphs, given: Sequence[Any]) -> Callable[[], Any]:
    """Takes a sample: the seconds that it took, and those of one call."""
    link = place.link

    def call() -> object:
        return main.main(*given)  # what it allocates is free for the next

    with place.working():
        for _ in range(_WARM):
            call()
        work, number = together(link, call, lambda calls: main.record(calls)[0].replay)

    def take() -> tuple[float, float]:
        with place.working():
            work()  # what launching takes is over before this is
            seconds = link.timed(work, 1)
        return seconds, seconds / number

    return take
