"""A peer's own process, and both ends of the talk with it.

The parent holds a `Worker`; the child is `python -m hybridc.compiler.worker`.  They speak JSON
lines: the first request prepares the peer, each later one takes samples, the end of the input ends
the child.  Whatever libraries print in the child goes to a log that is read when it dies.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self

from hybridc.compiler.errors import HybridcError
from hybridc.compiler.measure import Samples, latency
from hybridc.compiler.model import TensorSpec, random_feed
from hybridc.compiler.peer import Call, peers

# A peer that has not answered after so many seconds is given up: Inductor compiles for minutes.
TIMEOUT = 900.0


class PeerError(HybridcError):
    """A peer could not load or run the model."""


class Worker:
    """Starts a peer's process; a context manager that ends it."""

    def __init__(self, peer: str, model: Path) -> None:
        self.peer = peer
        self._model = model

    def __enter__(self) -> Self:
        self._log: IO[str] = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hybridc.compiler.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def prepare(self, inputs: Sequence[TensorSpec], threads: int, seed: int) -> None:
        """Load the model.  Raises PeerError with what the peer said."""
        self._ask(
            {
                "peer": self.peer,
                "model": str(self._model.resolve()),
                "inputs": [asdict(spec) for spec in inputs],
                "seed": seed,
                "threads": threads,
            }
        )

    def sample(self, seconds: float, warmup: float) -> Samples:
        """Take one turn's samples.  Raises PeerError where the call fails."""
        return Samples(tuple(self._ask({"seconds": seconds, "warmup": warmup})["seconds"]))

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise PeerError(" ".join(answer["error"].split()))
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        said = self._log.read().strip().splitlines()
        return f"its process ended with {code}: {said[-1] if said else 'no message'}"


def main() -> None:
    """Serve the parent: answer each line of stdin with one line on what was stdout."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    call: Call | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if call is None:
                call = _prepare(request)
            else:
                answer = {"seconds": latency(call, **request).seconds}
        except Exception as error:  # whatever a peer raises is its answer, told in one line
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _prepare(request: dict[str, Any]) -> Call:
    """Build the peer from its text and load the model, on inputs that every peer makes alike."""
    inputs = tuple(
        TensorSpec(given["name"], tuple(given["shape"]), given["dtype"])
        for given in request["inputs"]
    )
    feed = random_feed(inputs, request["seed"])
    peer = peers().create(request["peer"])
    return peer.prepare(Path(request["model"]), feed, request["threads"])


if __name__ == "__main__":
    main()
