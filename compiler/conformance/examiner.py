"""The process that cases run in; `run` holds the other end.

The first request names the suite; later ones list its cases or examine one of them.
"""

import importlib
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridc.compiler.child import Json, serve
from hybridc.compiler.conformance.suite import Result, Suite, Verdict, suites
from hybridc.compiler.errors import ModelError

_LONGEST = 300  # characters of a reason


class Examiner:
    """Answers the requests, with a suite that is made once."""

    def __init__(self) -> None:
        self._suite: Suite | None = None

    def __call__(self, request: Json) -> Json:
        """Do what the request's `do` says."""
        given = dict(request)
        answer: Json = getattr(self, given.pop("do"))(**given)
        return answer

    def begin(self, suite: str, memory: int) -> Json:
        """Make the suite, and limit what its cases may take beyond what TVM took by now."""
        importlib.import_module("tvm")
        self._suite = suites().create(suite)
        status = Path("/proc/self/status").read_text()
        held = int(status.partition("VmData:")[2].split()[0]) * 2**10
        resource.setrlimit(resource.RLIMIT_DATA, (held + memory, held + memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return {}

    def entries(self, core: bool) -> Json:
        """Name the cases."""
        assert self._suite is not None
        return {"entries": [[entry.name, entry.group] for entry in self._suite.entries(core)]}

    def examine(self, name: str, group: str) -> Json:
        """Run one case."""
        assert self._suite is not None
        suite, start = self._suite, time.perf_counter()
        result = judged(name, group, lambda: suite.examine(name))
        return replace(result, seconds=round(time.perf_counter() - start, 3)).to_json()


def judged(name: str, group: str, examine: Callable[[], Result]) -> Result:
    """The result of a case; what it raises is its verdict."""
    try:
        return replace(examine(), name=name, group=group)
    except ModelError as error:
        return Result(name, group, Verdict.UNSUPPORTED, _line(error))
    except Exception as error:  # whatever goes wrong is the verdict
        return Result(name, group, Verdict.ERROR, f"{type(error).__name__}: {_line(error)}")


def _line(error: Any) -> str:
    """One line; of a traceback that came as text, the last."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else "no reason given")[:_LONGEST]


if __name__ == "__main__":
    serve(Examiner())
