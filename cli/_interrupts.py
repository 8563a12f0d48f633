"""Signals that end a command: SIGTERM and SIGHUP do it as Ctrl-C does, each with its exit code."""

import os
import select
import signal
import time
from collections.abc import Callable

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
ENDING = (signal.SIGTERM, signal.SIGHUP)
# Seconds in which a signal that comes again is the same: `timeout` sends it to the process and to
# its group, impatient people press Ctrl-C twice, and who is ended by it is not to be ended again
# while it removes its files.
_AT_ONCE = 1.0
_OUTPUTS = (1, 2)


def leave_at_once(_: int, __: object) -> None:
    """End the process, which has nothing to keep or to remove yet, as a handler of SIGINT."""
    os._exit(INTERRUPTED)


def heeding(run: Callable[[], int]) -> int:
    """Run a command in which these signals and Ctrl-C interrupt it; return its exit code.

    That is 128 and the signal's number where one of them did.  Signals that are ignored, as by
    nohup, stay so.  What stood before stands again behind the command.
    """
    heard: list[tuple[int, float]] = []

    def heed(number: int, _: object) -> None:
        now = time.monotonic()
        again = any(now - when < _AT_ONCE for _, when in heard)
        heard.append((number, now))
        if number == signal.SIGHUP:
            _let_terminals_go()
        if not again:  # Ctrl-C explains itself
            raise KeyboardInterrupt(*([signal.Signals(number).name] * (number in ENDING)))

    usual = (signal.SIG_DFL, signal.default_int_handler, leave_at_once)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    free = {number: handler for number, handler in before.items() if handler in usual}
    for number in free:
        signal.signal(number, heed)
    try:
        code = run()
    except KeyboardInterrupt:  # it came while the command told of its end
        code = INTERRUPTED
    finally:
        for number, handler in free.items():
            signal.signal(number, handler)
    return 128 + heard[0][0] if heard and code == INTERRUPTED else code


def _let_terminals_go() -> None:
    """Write to nowhere what went to a terminal that is gone, where every write is an error."""
    watch = select.poll()
    for output in _OUTPUTS:
        watch.register(output, 0)  # that the other end hung up is told in any case
    for output, _ in watch.poll(0):
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
