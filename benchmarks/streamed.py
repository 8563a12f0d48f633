"""Read what a script prints as it measures, and let nothing of it outlive this process."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

_GLANCE = 0.2  # seconds between two looks whether the script has ended
_CHUNK = 2**16
_PATIENCE = 5.0  # seconds in which an interrupted script removes its temporary files


@contextmanager
def lines(call: Sequence[str]) -> Generator[Iterator[str], None, None]:
    """The lines that a Python script prints, each as soon as it is there, without their ends.

    However the block is left, the script and its whole process group end with it.  Raises
    CalledProcessError after the last line where the script failed.
    """
    # Unbuffered, and with a group to itself: Ctrl-C reaches this process, which then ends all.
    process = subprocess.Popen(
        [sys.executable, "-u", *call], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield _read(process)
    finally:
        _end(process)


def stop_on_signals() -> None:
    """Leave by an exception where a signal asks to end, so that every block is left in order."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)


def _leave(number: int, _: Any) -> None:
    raise SystemExit(128 + number)


def _read(process: subprocess.Popen[bytes]) -> Iterator[str]:
    assert process.stdout is not None
    left = b""
    while chunk := _chunk(process):
        *whole, left = (left + chunk).split(b"\n")
        yield from (line.decode() for line in whole)
    if left:
        yield left.decode()
    if code := process.wait():
        raise subprocess.CalledProcessError(code, process.args)


def _chunk(process: subprocess.Popen[bytes]) -> bytes:
    """What was printed next; nothing at the end, which is that of the script.

    What it started may outlive it, and hold the pipe open.
    """
    assert process.stdout is not None
    while True:
        ended = process.poll() is not None
        if select.select([process.stdout], [], [], 0.0 if ended else _GLANCE)[0]:
            return os.read(process.stdout.fileno(), _CHUNK)
        if ended:
            return b""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the script where it still runs; what of its group is left then is killed."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(_PATIENCE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
