"""Claim a kernel in the log while it is measured, so that no other tuner measures it too."""

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

from hybridc.compiler.errors import LogError
from hybridc.compiler.log.store import TuningLog

# A claim holds so many seconds; its owner renews it, unless somebody killed it.
LEASE = 20.0


@contextmanager
def claimed(log: TuningLog, work: str, owner: str, lease: float = LEASE) -> Generator[bool]:
    """Claim a piece of work while the block runs; False if somebody else is at it."""
    if not log.claim([work], owner, lease):
        yield False
        return
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(lease / 4):
            with suppress(LogError):  # who writes into the log next is told, and not this thread
                log.claim([work], owner, lease)

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        yield True
    finally:
        stop.set()
        renewing.join()
        log.release([work], owner)
