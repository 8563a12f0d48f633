"""A function's answer from a fork of this process, within limits.

All that this process has imported and computed is there at once, and whatever the function does
ends with the fork.  In a fork only the thread that called goes on, and locks that others hold stay
locked for ever: this process should have no other thread.
"""

import ctypes
import gc
import json
import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from hybridc.compiler.processes import rlimits
from hybridc.compiler.processes.child import DIE_WITH_PARENT, ChildError, Json, first_of

_CHUNK = 2**16


@dataclass(frozen=True)
class Limits:
    """What a fork may take: seconds, and bytes beyond what its process held before."""

    seconds: float = 60.0
    memory: int = 4 * 2**30


def answer(function: Callable[[], Json], limits: Limits) -> dict[str, Any]:
    """Call a function in a fork.

    Raises ChildError if the fork ends without an answer, or takes longer than it may.  What it
    started ends with it.
    """
    readable, writable = os.pipe()
    number = forked()
    if number == 0:
        _work(function, writable, limits.memory)
    os.close(writable)
    try:
        reply = _Fork(readable, limits.seconds).read()
    finally:
        os.close(readable)
    if reply is None:
        os.kill(number, signal.SIGKILL)
    os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
    with suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)  # what it started; its own number is not free yet
    _, status = os.waitpid(number, 0)
    if not reply:
        code = os.waitstatus_to_exitcode(status)
        raise ChildError(code, "", timed_out=reply is None)
    document: dict[str, Any] = json.loads(reply)
    return document


def forked() -> int:
    """`os.fork`, where the fork collects no garbage that was there before.

    What ends may wait for a thread of its own, which no fork has, and so for ever.
    """
    number = os.fork()
    if number == 0:
        gc.freeze()
    return number


class _Fork:
    """The end of the pipe that is read."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        self._descriptor = descriptor
        self.deadline = time.monotonic() + seconds

    def fileno(self) -> int:
        """What `select` waits on."""
        return self._descriptor

    def read(self) -> bytes | None:
        """What the fork says until it ends; None if its time is over."""
        reply = bytearray()
        while True:
            if not first_of([self], 1.0):
                continue
            if time.monotonic() >= self.deadline:
                return None
            chunk = os.read(self._descriptor, _CHUNK)
            if not chunk:
                return bytes(reply)
            reply += chunk


def _work(function: Callable[[], Json], answers: int, memory: int) -> NoReturn:
    """The fork's side; whatever happens, it ends here."""
    code = 1
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGHUP):  # what its parent does then is not its task
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the input may be its parent's requests
        rlimits.memory(memory)
        rlimits.no_dump()
        reply = json.dumps(dict(function())).encode()
        with os.fdopen(answers, "wb") as stream:
            stream.write(reply)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
