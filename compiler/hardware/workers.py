"""TVM's workers, also in a process that forks.

Of a process that forks only the thread that does so lives on in the child.  A call there would wait
for workers for ever.  So would the child as it ends, if any of them slept: a condition variable
waits for those who wait for it.  And nobody can wait until they have ended, which they do after
their last look for work: so those of a thread that forks are kept at work meanwhile.
"""

import ctypes
import os
import threading
import time
from functools import cache
from typing import Any

_BIG_CORES = 1  # the affinity mode of TVM's thread pool that spreads threads over the fast cores
_ALL = 2**16  # more workers than a pool has
_AS_TOLD = 0  # as many threads as the environment says
_TASK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
# From what TVM's ParallelLauncher shows to tasks to its number of those that go on: a pointer, an
# int, and a bool, each on its own boundary.
_GOING_ON = 20
_STEP = 1e-4  # seconds


class Workers:
    """The workers of whichever thread asks."""

    def __init__(self) -> None:
        import tvm

        self.count: Any = tvm.get_global_func("runtime.NumThreads")
        self._configure: Any = tvm.get_global_func("runtime.config_threadpool")
        runtime = ctypes.CDLL(None)
        # TVM has no names of its own for these.
        self._replace = runtime["_ZN3tvm7runtime9threading15ResetThreadPoolEv"]
        self._limit = runtime["_ZN3tvm7runtime9threading17SetMaxConcurrencyEi"]
        self._launch = runtime["TVMBackendParallelLaunch"]
        self._here = _Here()
        os.register_at_fork(
            before=self._keep, after_in_parent=self._release, after_in_child=self._lose
        )

    def resize(self, count: int) -> None:
        """Let calls of this thread run on so many threads, as far as TVM has been told before."""
        if self._here.gone:
            self._here.gone = False
            self._replace()
        self._configure(_BIG_CORES, count)

    def _keep(self) -> None:
        """Give each something to do that ends when it is released."""
        if self._here.gone:
            return
        self._here.count = self.count()
        self._configure(_BIG_CORES, _ALL)
        if (every := self.count()) > 1:
            self._here.kept = kept = _Kept(every)
            self._limit(every)
            self._launch(kept.task, None, every)
            self._limit(_AS_TOLD)

    def _release(self) -> None:
        if self._here.kept:
            self._here.kept.release()
            self._here.kept = None
        if not self._here.gone:
            self._configure(_BIG_CORES, self._here.count)

    def _lose(self) -> None:
        """Note that there are none, and say so to whoever counts them."""
        self._configure(_BIG_CORES, 1)
        self._here.gone, self._here.kept = True, None


class _Here(threading.local):
    """What is known of the workers of a thread."""

    def __init__(self) -> None:
        self.gone = False  # with a fork
        self.count = 1  # how many calls used before the fork
        self.kept: _Kept | None = None


class _Kept:
    """A task of so many threads from which the caller returns at once, and workers if released."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._arrived = threading.Semaphore(0)
        self._released = threading.Event()
        self._going_on = ctypes.c_int()
        self.task = _TASK(self._part)

    def _part(self, number: int, shown: int, _: object) -> int:
        if number:
            self._arrived.release()
            self._released.wait()
            return 0
        for _ in range(self._count - 1):
            self._arrived.acquire()
        self._going_on = ctypes.c_int.from_address(shown + _GOING_ON)
        if self._going_on.value == self._count:
            self._going_on.value = 1  # the caller waits for itself alone
        else:  # another TVM, whose caller waits for all; they look out for work for a while
            self._released.set()
        return 0

    def release(self) -> None:
        """Let the workers return, and wait until they have: they would count at the next call."""
        if not self._released.is_set():
            self._released.set()
            while self._going_on.value != 1 - self._count:
                time.sleep(_STEP)


@cache
def workers() -> Workers:
    """Those of this process."""
    return Workers()
