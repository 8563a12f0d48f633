"""The order in which sessions of a process give a GPU work, each on a stream of its own.

TVM has one pool of memory for a GPU, and gives memory again as soon as the host lets go of it,
whatever still runs there.  Within a stream that is in order; between streams somebody has to wait.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hybridc.compiler.cuda.link import Link


@dataclass
class Order:
    """Lets one session at a time give work, which begins once that of the last one is done.

    Only the GPU waits for that, and only where another session had its turn in between.
    """

    _lock: Any = field(default_factory=threading.RLock)
    _last: Link | None = None

    @contextmanager
    def turn(self, link: Link) -> Generator[None]:
        """Give work on a link's stream within."""
        with self._lock:
            if self._last not in (None, link):
                link.follow(self._last.stream)
            self._last = link
            yield


@cache
def of_gpu(index: int) -> Order:
    """The order of all sessions of this process on a GPU."""
    del index  # what it is kept by
    return Order()
