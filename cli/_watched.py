"""A command line in a process of its own, so that nobody takes how that ends for its exit code.

Functions of the user's may end the process that they are called in (`os._exit`, a C library's
`exit`), by 0 as well.
"""

import os
import signal
from collections.abc import Callable
from typing import NoReturn

DIED = 128  # and the number of the signal, as a shell reports it
_OURS = {signal.SIGINT, signal.SIGCHLD}


def watched(run: Callable[[], int], leave: Callable[[int], NoReturn]) -> int | None:
    """The exit code of what is run in a fork, which then `leave`s; None where it ended before.

    This process is to have no other thread yet.
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
    os.set_blocking(readable, False)  # a process that the command started may hold the other end
    with os.fdopen(readable, "rb") as stream:
        said = stream.read(1)
    if said:
        return said[0]
    return DIED - status if status < 0 else None


def _ended(child: int) -> int:
    """Wait; a terminal's Ctrl-C is for both processes, one that is sent to this is passed on."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    while True:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return status
        got = signal.sigwaitinfo(_OURS)
        if got.si_signo == signal.SIGINT and got.si_code <= 0:
            os.kill(child, signal.SIGINT)


def _die_with_parent() -> None:
    import ctypes

    from hybridc.compiler.child import DIE_WITH_PARENT

    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
