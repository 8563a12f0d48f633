"""TVM's workers, also in a process that forks.

Of a process that forks only the thread that does so lives on in the child.  A call there would wait
for workers for ever, and so would the child as it ends: for those that sleep, since nobody wakes
them any more.
"""

import ctypes
import os
from functools import cache
from typing import Any

_BIG_CORES = 1  # the affinity mode of TVM's thread pool that spreads threads over the fast cores


class Workers:
    """The workers of whichever thread asks."""

    def __init__(self) -> None:
        import tvm

        self.count: Any = tvm.get_global_func("runtime.NumThreads")
        self._configure: Any = tvm.get_global_func("runtime.config_threadpool")
        # TVM has no name of its own for this one.
        self._replace = ctypes.CDLL(None)["_ZN3tvm7runtime9threading15ResetThreadPoolEv"]
        self._gone = False
        # New workers look out for work for a tenth of a second before they sleep.
        os.register_at_fork(before=self._replace, after_in_child=self._lose)

    def resize(self, count: int) -> None:
        """Let calls of this thread run on so many threads, as far as TVM has been told before."""
        if self._gone:
            self._gone = False
            self._replace()
        self._configure(_BIG_CORES, count)

    def _lose(self) -> None:
        """Note that there are none, and say so to whoever counts them."""
        self._configure(_BIG_CORES, 1)
        self._gone = True


@cache
def workers() -> Workers:
    """Those of this process."""
    return Workers()
