"""Signals that end a command: SIGTERM and SIGHUP do it as Ctrl-C does, each with its exit code."""

import os
import select
import signal
import time
from collections.abc import Callable

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
ENDING = (signal.SIGTERM, signal.SIGHUP)
# Seconds in which a signal that comes again is the same: `timeout` sends it to the process and to
# its group, and who is ended by it is not to be ended again while it removes its files.
_AT_ONCE = 1.0
_OUTPUTS = (1, 2)


def leave_at_once(_: int, __: object) -> None:
    """End the process, which has nothing to keep or to remove yet, as a handler of SIGINT."""
    os._exit(INTERRUPTED)


def heeding(run: Callable[[], int]) -> int:
    """Run a command in which these signals raise KeyboardInterrupt; return its exit code.

    That is 128 and the signal's number where one of them interrupted it.  Signals that are ignored,
    as by nohup, stay so.
    """
    heard: list[tuple[int, float]] = []

    def heed(number: int, _: object) -> None:
        now = time.monotonic()
        again = any(now - when < _AT_ONCE for _, when in heard)
        heard.append((number, now))
        if number == signal.SIGHUP:
            _let_terminals_go()
        if not again:
            raise KeyboardInterrupt(signal.Signals(number).name)

    if signal.getsignal(signal.SIGINT) is leave_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    free = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in free:
        signal.signal(number, heed)
    try:
        code = run()
    finally:
        for number in free:
            signal.signal(number, signal.SIG_DFL)
    return 128 + heard[0][0] if heard and code == INTERRUPTED else code


def _let_terminals_go() -> None:
    """Write to nowhere what went to a terminal that is gone, where every write is an error."""
    watch = select.poll()
    for output in _OUTPUTS:
        watch.register(output, 0)  # that the other end hung up is told in any case
    for output, _ in watch.poll(0):
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
