"""A process and all its descendants, which are looked for now and then and read often."""

import time
from collections.abc import Callable

import psutil

from hybridc.compiler.hardware.load import seconds_of

_LOOK = 1.0  # seconds between two looks for new children: a look reads every process there is


class ProcessTree:
    """The tree of one process, this one by default."""

    def __init__(
        self, process: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._root = psutil.Process(process)
        self._clock = clock
        self._members = [self._root]
        self._looked = float("-inf")

    def seconds(self) -> float:
        """CPU seconds that all have used; what ended counts once its parent has waited for it."""
        return sum(map(seconds_of, self._living()))

    def resident(self) -> int:
        """Bytes of memory that all hold; pages that they share count for each."""
        return sum(map(_resident, self._living()))

    def _living(self) -> list[psutil.Process]:
        now = self._clock()
        if now - self._looked >= _LOOK:
            self._looked = now
            self._members = [self._root, *self._root.children(recursive=True)]
        return self._members


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
