"""One tuner for each GPU of this host; they share the kernels by what they claim in the log."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hybridc.compiler import settings
from hybridc.compiler.cuda import driver
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.target import Target
from hybridc.compiler.tuning.candidates.processes import DeadlineError

# Tunes on a GPU until `ended` says when to end, by `time.monotonic`; returns what was measured.
Tune = Callable[[str, "Ending"], int]


def names(target: Target) -> tuple[str | None, ...]:
    """What `CUDA_VISIBLE_DEVICES` is to be for each GPU that a target means; None on a CPU.

    Only the GPUs that the variable lets this process see are used, under the names that it gives
    them, and of these only those of the target's kind.
    """
    if target.gpu is None:
        return (None,)
    found = driver.devices()
    seen = settings.visible_gpus() or tuple(str(device.index) for device in found)
    alike = [device.index for device in found if device.gpu.arch == target.gpu.arch]
    return tuple(seen[index] for index in alike if index < len(seen)) or (seen[0],)


@dataclass
class Ending:
    """When tuners beside the first one have to end: at once, where `now` is called."""

    _told: list[Callable[[float], None]] = field(default_factory=list[Callable[[float], None]])
    _over: bool = False

    def tell(self, end_at: Callable[[float], None]) -> None:
        """Have a pool's `end_at` called when it is time."""
        self._told.append(end_at)
        if self._over:
            end_at(time.monotonic())

    def now(self) -> None:
        """End all."""
        self._over = True
        for end_at in self._told:
            end_at(time.monotonic())


@contextmanager
def beside(others: Sequence[str], tune: Tune) -> Generator[list[int]]:
    """Tune on other GPUs while the body does on its own; gives how much each measured, in the end.

    They end by their own budgets, and at once where the body is interrupted.  What fails on one
    GPU fails there: the others go on, and the kernels that it claimed are free again in a while.
    """
    ending, measured = Ending(), list[int]()

    def work(name: str) -> None:
        try:
            measured.append(tune(name, ending))
        except (HybridcError, DeadlineError):
            measured.append(0)

    workers = [threading.Thread(target=work, args=(name,), daemon=True) for name in others]
    for worker in workers:
        worker.start()
    try:
        yield measured
    except BaseException:
        ending.now()
        raise
    finally:
        for worker in workers:
            worker.join()
