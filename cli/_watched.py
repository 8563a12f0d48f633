"""Run a command line in a child process, to tell its exit code from a process that just ended.

User code may end the process that it runs in (`os._exit`, `exit` in a C library), even with 0,
which must not be taken for success.
"""

import os
import signal
from collections.abc import Callable
from typing import NoReturn

from hybridc.cli._interrupts import ENDING

DIED = 128  # and the number of the signal, as a shell reports it
_PASSED_ON = {signal.SIGINT, *ENDING}


def watched(run: Callable[[], int], leave: Callable[[int], NoReturn]) -> int | None:
    """Call `run` in a fork, which then leaves; return its exit code, or None if it ended early.

    This process must not have started any thread yet.
    """
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        _die_with_parent()
        code = run()
        os.write(writable, bytes([code]))
        leave(code)
    os.close(writable)
    status = os.waitstatus_to_exitcode(_ended(child))
    os.set_blocking(readable, False)  # a grandchild may still hold the other end open
    with os.fdopen(readable, "rb") as stream:
        said = stream.read(1)
    if said:
        return said[0]
    return DIED - status if status < 0 else None


def _ended(child: int) -> int:
    """Wait for the child, passing on what would end this process and was sent to it by a process.

    Ctrl-C in a terminal, and its end, reach both without that.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    awaited = {*_PASSED_ON, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    while True:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return status
        got = signal.sigwaitinfo(awaited)
        if got.si_signo in _PASSED_ON and got.si_code <= 0:
            os.kill(child, got.si_signo)


def _die_with_parent() -> None:
    import ctypes

    from hybridc.compiler.processes.child import DIE_WITH_PARENT

    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
