"""Defer Ctrl-C, SIGTERM and SIGHUP while something must not be left half done."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def uninterrupted() -> Generator[None]:
    """Let what would end the process wait until what is done within is done.

    By a handler and not by a mask of signals: one that another thread of the process receives is
    raised here all the same.  A signal that is not Python's to handle is left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    late: list[int] = []
    before = {number: signal.getsignal(number) for number in _ENDING}
    ours = {number: handler for number, handler in before.items() if handler is not None}
    try:
        for number in ours:
            signal.signal(number, lambda number, _: late.append(number))
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        if late:
            signal.raise_signal(late[0])
