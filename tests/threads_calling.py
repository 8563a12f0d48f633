"""One session called by several threads at once."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridc.compiler.runtime.session import InferenceSession


def mixed_up(
    session: InferenceSession, feeds: Sequence[Any], wanted: Sequence[Any], calls: int
) -> list[int]:
    """The numbers of the threads, one for each of the feeds, that got something else than wanted.

    A number is there once for each such call.
    """
    wrong: list[int] = []

    def work(place: int) -> None:
        for _ in range(calls):
            if not all(map(np.array_equal, session.run(None, feeds[place]), wanted[place])):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(feeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong
