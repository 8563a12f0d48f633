"""Functions in forks: what they answer, how they end, and what they may take."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

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
    assert answer(lambda: {"size": packed()}, Limits(20)) == {"size": size}


@pytest.mark.parametrize(
    ("function", "code", "late"),
    [
        (os.abort, -6, False),
        (lambda: sys.exit(3), 1, False),
        (lambda: os._exit(4), 4, False),
        (lambda: {"no": object()}, 1, False),
        (lambda: time.sleep(60), -9, True),
    ],
)
def test_a_fork_that_does_not_answer(function: Callable[[], Any], code: int, late: bool) -> None:
    with pytest.raises(ChildError) as raised:
        answer(function, Limits(seconds=1.0))
    assert (raised.value.code, raised.value.timed_out) == (code, late)


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
        return {"number": subprocess.Popen(["sleep", "60"]).pid}

    number = answer(start, Limits())["number"]
    for _ in range(50):
        with open(f"/proc/{number}/status") as status:
            if "zombie" in status.read():
                return
        time.sleep(0.1)
    pytest.fail("it lives")
