"""Rows measured in a process that they share until one fails.

A context on a GPU, torch's libraries, a model and its answer take longer than most rows do.
"""

import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from gpu_ahead import POLL, forked
from gpu_rows import Cells, Machine, Row

from hybridc.compiler.errors import first_line
from hybridc.compiler.processes.child import ChildError

NO_TIME = "not run: no time was left"
_LEAST = 5  # seconds in which a row may be begun
_FAILED = "failed: "
_FOUND = "found.json"


def measured(
    rows: Sequence[Row],
    machine: Callable[[], Machine],
    folder_of: Callable[[Row], Path],
    end: float,
) -> Iterator[tuple[Row, Cells]]:
    """Each row's cells, or why there are none, as soon as they are known.

    What fails or takes longer than it may ends its process, and those behind it get another one.
    `end` is by `time.monotonic`; `machine` is called in forks.
    """
    waiting = list(rows)
    while waiting:
        if end - time.monotonic() < _LEAST:
            yield waiting.pop(0), {"result": NO_TIME}
            continue
        worker = forked(partial(_work, list(waiting), machine, folder_of))
        try:
            shared = True
            while shared and waiting:
                seconds = min(waiting[0].limit, end - time.monotonic())
                cells, shared = _awaited(worker, folder_of(waiting[0]) / _FOUND, seconds)
                yield waiting.pop(0), cells
        finally:
            _ended(worker)


def _work(
    rows: Sequence[Row], machine: Callable[[], Machine], folder_of: Callable[[Row], Path]
) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for row in rows:
        folder = folder_of(row)
        try:
            cells = row.measure(machine(), folder)
        except Exception as error:  # whatever fails is this row's
            cells = {"result": f"{_FAILED}{type(error).__name__}: {first_line(error)[:120]}"}
        written = folder / "found.part"
        written.write_text(json.dumps(cells))
        written.rename(folder / _FOUND)
        if cells.get("result", "").startswith(_FAILED):
            return  # it may have cost this process its GPU


def _awaited(worker: int, found: Path, seconds: float) -> tuple[Cells, bool]:
    """A row's cells, and whether its process goes on."""
    until = time.monotonic() + seconds
    while not found.exists():
        ended = os.waitid(os.P_PID, worker, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None and not found.exists():
            by_itself = ended.si_code == os.CLD_EXITED
            code = ended.si_status if by_itself else -ended.si_status
            return {"result": f"its process {ChildError(code, '', timed_out=False)}"}, False
        if time.monotonic() >= until:
            return {"result": "no answer in time"}, False
        time.sleep(POLL)
    cells: Cells = json.loads(found.read_text())
    return cells, not cells.get("result", "").startswith(_FAILED)


def _ended(worker: int) -> None:
    """End a process and what it started."""
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    with suppress(ProcessLookupError):
        os.killpg(worker, signal.SIGKILL)  # its own number is not free yet
    os.waitpid(worker, 0)
