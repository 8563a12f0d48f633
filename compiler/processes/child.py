"""A Python process of our own that answers requests, and both ends of the talk with it.

They speak lines of JSON.  Whatever libraries print in the child goes to a log that is read when it
dies.  The child has a process group to itself: Ctrl-C reaches the parent alone, and a child is
killed with all that it started.  The end of its input ends it, and so does the parent's death.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, Protocol, TypeVar

Json = Mapping[str, Any]
# Is told each request with its answer, and when they were sent and read (`time.perf_counter_ns`).
Heard = Callable[["Child", Json, Json, int, int], None]

DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
# torch takes longer to import than all that a child needs
_ALONE = "hybridc.compiler.processes.tvm_alone"
_CHUNK = 2**16
_SAID = 2_000  # characters of the log's end
_STEP = 1.0  # seconds; who waits longer at once was stopped, and so was the child


class Due(Protocol):
    """What an answer is due of: `select` waits on it, until its deadline (`time.monotonic`)."""

    deadline: float

    def fileno(self) -> int:
        """The descriptor."""
        ...


AnyDue = TypeVar("AnyDue", bound=Due)


class ChildError(Exception):
    """The child ended, or was killed since it did not answer in time.

    `code` is its exit code (negative: the signal that ended it), `said` the end of what it printed.
    """

    def __init__(self, code: int, stderr: str, *, timed_out: bool) -> None:
        self.code, self.said, self.timed_out = code, stderr, timed_out
        last = stderr.strip().splitlines()[-1:] or ["no message"]
        how = "did not answer in time" if timed_out else f"ended with {code}"
        told = f"its process {how}: {last[0]}"
        if code < 0 and not timed_out:  # what it said last is where it was, as numbers
            told = f"its process was ended by {_signal(-code)}"
        super().__init__(told)


def _signal(number: int) -> str:
    """`SIGSEGV`; those for real time have no name."""
    known = {int(each): each.name for each in signal.Signals}
    return known.get(number, f"signal {number}")


class Child:
    """The parent's end.  `send` a request, then `receive` its answer; one request at a time."""

    def __init__(
        self,
        module: str,
        environment: Mapping[str, str] | None = None,
        heard: Heard | None = None,
    ) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `kill` closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", _ALONE, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._read = bytearray()
        self.deadline = float("inf")
        self._heard = heard
        self._asked: tuple[Json, int] = {}, 0

    @property
    def number(self) -> int:
        """The process's number."""
        return self._process.pid

    def fileno(self) -> int:
        """What `select` waits on for an answer."""
        return self._output.fileno()

    def send(self, request: Json, timeout: float) -> None:
        """Ask; the answer is due within so many seconds."""
        self.deadline = time.monotonic() + timeout
        self._asked = request, time.perf_counter_ns()
        with suppress(BrokenPipeError):  # the child is dead, which `receive` tells
            self._input.write(json.dumps(request).encode() + b"\n")
            self._input.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for the answer.  Raises ChildError if there is none in time."""
        while (answer := self.poll(_STEP)) is None:
            continue
        return answer

    def ask(self, request: Json, timeout: float) -> dict[str, Any]:
        """Send and receive."""
        self.send(request, timeout)
        return self.receive()

    def poll(self, seconds: float = 0.0) -> dict[str, Any] | None:
        """The answer if it comes within so many seconds.  Raises ChildError as `receive` does."""
        if self in first_of([self], seconds) and _readable([self], 0.0):
            chunk = os.read(self.fileno(), _CHUNK)
            if not chunk:
                raise self._gone(timed_out=False)
            self._read += chunk
            if chunk.endswith(b"\n"):
                line, self._read = bytes(self._read), bytearray()
                answer: dict[str, Any] = json.loads(line)
                self._tell(answer)
                return answer
        if time.monotonic() >= self.deadline:
            raise self._gone(timed_out=True)
        return None

    def kill(self) -> None:
        """End the child and what it started; harmless if it has ended."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._output, self._log):
            stream.close()
        with suppress(BrokenPipeError):  # what it did not read any more
            self._input.close()

    def _tell(self, answer: Json) -> None:
        if self._heard is not None:
            request, sent = self._asked
            self._heard(self, request, answer, sent, time.perf_counter_ns())

    def _gone(self, *, timed_out: bool) -> ChildError:
        if timed_out:
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        self._log.seek(0)
        stderr = self._log.read().decode(errors="replace")[-_SAID:]
        self.kill()
        error = ChildError(code, stderr, timed_out=timed_out)
        self._tell({"error": str(error)})
        return error


def first_of(children: Sequence[AnyDue], seconds: float) -> list[AnyDue]:
    """Those that have answered or ended, or whose answer is overdue; waits up to `seconds`.

    Time in which this process was stopped does not count against the children.
    """
    start = time.monotonic()
    due = min((child.deadline for child in children), default=0.0)
    ready = _readable(children, max(0.0, min(seconds, _STEP, due - start)))
    now = time.monotonic()
    stopped = now - start - _STEP
    if stopped > _STEP:
        for child in children:
            child.deadline += stopped
    return [child for child in children if child in ready or now >= child.deadline]


def _readable(children: Sequence[AnyDue], seconds: float) -> list[AnyDue]:
    return select.select(children, [], [], seconds)[0]


def serve(answer: Callable[[Json], Json]) -> None:
    """The child's end: answer each request until the input ends.

    What `answer` raises is told in one line, as `error`, with the exception's name as `kind`.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    for line in sys.stdin:
        try:
            reply = dict(answer(json.loads(line)))
        except Exception as error:  # whatever goes wrong is the answer
            message = " ".join(f"{type(error).__name__}: {error}".split())
            reply = {"error": message, "kind": type(error).__name__}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
