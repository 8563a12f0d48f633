"""What rows prepare: beside each other and beside the tests, by processes that time nothing.

Workers claim one row after another; each is prepared in a process of its own, with a time limit.
"""

import ctypes
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpu_rows import Machine, Row

from hybridc.compiler.errors import first_line
from hybridc.compiler.processes import fork
from hybridc.compiler.processes.child import DIE_WITH_PARENT, ChildError
from hybridc.compiler.processes.fork import Limits

_ROOMY = 2**62  # bytes: a GPU's driver maps more memory than any machine has
POLL = 0.05  # seconds
_AHEAD = 1  # rank
_MOST_TOGETHER = 8  # rows
_CLAIMED, _SAID = "claimed", "said.json"


def asked(work: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """What a fork answers; this process itself never touches the GPU, which forks would lack."""
    try:
        return fork.answer(work, Limits(seconds, _ROOMY))
    except ChildError as error:
        return {"error": "no answer in time" if error.timed_out else f"its process {error}"}


class Ahead:
    """Rows that are prepared ahead, each in a folder of its own.  `machine` is called in forks."""

    def __init__(self, rows: Sequence[Row], machine: Callable[[], Machine], folder: Path) -> None:
        self._rows, self._machine, self._folder = list(rows), machine, folder
        self._workers: dict[bool, list[int]] = {False: [], True: []}
        for number in range(len(self._rows)):
            (folder / str(number)).mkdir()

    def begin(self, count: int, warms: bool) -> None:
        """Start so many processes for the rows that do not use the GPU for it, or those that do."""
        wanted = [row for row in self._rows if row.prepare and row.warms == warms]
        for _ in range(min(count, len(wanted))):
            self._workers[warms].append(forked(lambda: self._work(wanted)))

    def end(self, warms: bool, until: float = 0.0) -> None:
        """Wait for these processes until a time by `time.monotonic`, and stop what is left."""
        for worker in self._workers[warms]:
            while os.waitid(os.P_PID, worker, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                if time.monotonic() >= until:
                    os.kill(worker, signal.SIGKILL)  # and with it what it waits for
                    break
                time.sleep(POLL)
            os.waitpid(worker, 0)
        self._workers[warms].clear()

    def folder_of(self, row: Row) -> Path:
        """Where a row's files are."""
        return self._folder / str(self._rows.index(row))

    def in_turn(self, end: float) -> Iterator[list[Row]]:
        """The rows by rank, until a time by `time.monotonic` with no wait for what is not ready.

        While one is not prepared yet, others of about its rank are taken that are.  Those of one
        table and rank that are prepared come together.
        """
        waiting = list(self._rows)
        while waiting:
            near = [row for row in waiting if row.rank <= waiting[0].rank + _AHEAD]
            ready = [row for row in near if self._is_ready(row)]
            if not ready and time.monotonic() < end:
                time.sleep(POLL)
                continue
            first = (ready or waiting)[0]
            kind = first.table, first.rank
            together = [row for row in ready if (row.table, row.rank) == kind] or [first]
            for row in together[:_MOST_TOGETHER]:
                waiting.remove(row)
            yield together[:_MOST_TOGETHER]

    def failure(self, row: Row) -> str:
        """Why a row is not prepared, or nothing."""
        if not self._is_ready(row):
            return "not compiled in time"
        if row.prepare is None or row.warms:
            return ""
        told: dict[str, str] = json.loads((self.folder_of(row) / _SAID).read_text())
        return told.get("error", "")

    def _is_ready(self, row: Row) -> bool:
        # What warms caches helps, but nothing waits for it.
        return row.prepare is None or row.warms or (self.folder_of(row) / _SAID).exists()

    def _work(self, wanted: Sequence[Row]) -> None:
        os.nice(5)
        for row in wanted:
            folder = self.folder_of(row)
            try:
                (folder / _CLAIMED).touch(exist_ok=False)
            except FileExistsError:
                continue
            told = asked(lambda row=row, folder=folder: self._prepared(row, folder), row.limit)
            written = folder / "said.part"
            written.write_text(json.dumps(told))
            written.rename(folder / _SAID)

    def _prepared(self, row: Row, folder: Path) -> dict[str, str]:
        assert row.prepare is not None
        try:
            row.prepare(self._machine(), folder)
        except Exception as error:  # whatever fails is this row's
            return {"error": f"failed: {type(error).__name__}: {first_line(error)[:120]}"}
        return {}


def forked(work: Callable[[], None]) -> int:
    """The number of a fork that works, and ends with this process or before."""
    number = fork.forked()
    if number:
        return number
    try:
        os.setpgid(0, 0)  # Ctrl-C is for the process that started this
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
