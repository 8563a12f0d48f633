"""Whether a model is faster with the kernels that libraries compute, as a whole.

Alone, a kernel has the cores to itself.  In a model the threads of a library wait for its next
call while ours work, and the other way round.
"""

from statistics import median
from typing import Any

from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.cuda import timing
from hybridc.compiler.measurement import measure
from hybridc.compiler.offload import calls
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.text.units import format_durations

_SECONDS = 2.0


def is_faster(joined: Artifact, own: Artifact, feed: Any, threads: int) -> tuple[bool, str]:
    """Whether the artifact with libraries is the faster one, and what is to be told of it."""
    sessions = [InferenceSession(each, threads) for each in (joined, own)]
    if joined.device or own.device:
        times = timing.in_turns([session.on_device(feed) for session in sessions])
    else:
        runs = [lambda session=session: session.run(None, feed) for session in sessions]
        times = measure.in_turns(runs, seconds=_SECONDS)
    theirs, ours = map(median, times)
    counts = calls.counted(joined.offloads).items()
    with_them, without = format_durations([theirs, ours])
    named = ", ".join(f"{count} kernels by {name}" for name, count in counts)
    note = f"the model takes {with_them} with {named} and {without} without"
    faster = theirs < ours
    return faster, note if faster else f"{note}, so all are our own"
