"""Functions in forks: what they answer, how they end, and what they may take."""

import gc
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from child_runs import ended

from hybridc.compiler.artifacts import archive
from hybridc.compiler.processes.child import ChildError
from hybridc.compiler.processes.fork import Limits, answer


def test_a_fork_answers_with_what_its_parent_has() -> None:
    known = {"x": "ä" * 100_000}
    assert answer(lambda: {**known, "pid": os.getpid()}, Limits())["x"] == known["x"]
    assert answer(lambda: {"pid": os.getpid()}, Limits())["pid"] != os.getpid()


def test_what_a_fork_does_ends_with_it() -> None:
    known = {"x": 1}
    assert answer(lambda: known.update(x=2) or known, Limits()) == {"x": 2}
    assert known == {"x": 1}


def test_what_a_process_has_hashed_a_fork_hashes_too() -> None:
    """Threads of a library that hashes would not come with the fork, which waits for ever."""

    def packed() -> int:
        stream = io.BytesIO()
        members = {name: (bytes(2**22),) for name in archive.MEMBERS if name != archive.MANIFEST}
        archive.write(stream, {}, members)
        return stream.tell()

    size = packed()
    assert answer(lambda: {"size": packed()}, Limits(300)) == {"size": size}


class Joining:
    """Garbage, once nobody has it, whose end waits for a thread that no fork has."""

    def __init__(self) -> None:
        self.itself, self._owner = self, os.getpid()

    def __del__(self) -> None:
        while os.getpid() != self._owner:
            time.sleep(1)


def test_a_fork_ends_nothing_of_its_parents() -> None:
    gc.disable()  # until the fork has it
    try:
        Joining()
        assert answer(lambda: {"collected": gc.collect()}, Limits(20.0))
    finally:
        gc.enable()
        gc.collect()


@pytest.mark.parametrize(
    ("function", "code", "seconds"),
    [
        (os.abort, -6, 300.0),
        (lambda: sys.exit(3), 1, 300.0),
        (lambda: os._exit(4), 4, 300.0),
        (lambda: {"no": object()}, 1, 300.0),
        (lambda: time.sleep(600), -9, 1.0),
    ],
)
def test_a_fork_that_does_not_answer(
    function: Callable[[], Any], code: int, seconds: float
) -> None:
    with pytest.raises(ChildError) as raised:
        answer(function, Limits(seconds))
    assert (raised.value.code, raised.value.timed_out) == (code, seconds == 1.0)


def test_memory_is_limited_beyond_what_is_held() -> None:
    def fill() -> Any:
        try:
            return {"size": len(bytearray(2**28))}
        except MemoryError:
            return {"size": 0}

    held = bytearray(2**26)
    assert answer(fill, Limits(memory=2**27)) == {"size": 0}
    assert answer(fill, Limits(memory=2**29)) == {"size": 2**28}
    del held


def test_what_a_fork_started_ends_with_it() -> None:
    def start() -> Any:
        return {"number": subprocess.Popen(["sleep", "600"]).pid}

    assert ended(answer(start, Limits())["number"])
