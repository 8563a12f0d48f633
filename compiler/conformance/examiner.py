"""The process that cases run in; `run` holds the other end.

The first request names the suite and which of its cases are wanted; later ones list these or
examine one of them.  Each case is examined in a fork of this process: what all of them need is
imported once, and a case that crashes, hangs or fills the memory is lost alone.
"""

import gc
import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hybridc.compiler.conformance.suite import Entry, Result, Suite, Verdict, suites
from hybridc.compiler.errors import ModelError
from hybridc.compiler.processes import fork
from hybridc.compiler.processes.child import ChildError, Json, serve
from hybridc.compiler.processes.fork import Limits

_LONGEST = 300  # characters of a reason


class Examiner:
    """Answers the requests, with a suite that is made once."""

    def __init__(self) -> None:
        self._suite: Suite | None = None
        self._entries: Sequence[Entry] = ()
        self._limits = Limits()

    def __call__(self, request: Json) -> Json:
        """Do what the request's `do` says."""
        arguments = dict(request)
        answer: Json = getattr(self, arguments.pop("do"))(**arguments)
        return answer

    def begin(self, suite: str, wanted: Json, limits: Json) -> Json:
        """Make the suite's cases that are wanted, and run those that warm it up."""
        importlib.import_module("tvm")
        self._suite, self._limits = suites().create(suite), Limits(**limits)
        self._entries = self._suite.named(**wanted)
        for name in self._suite.warm_up:
            _examined(self._suite, name, "")
        gc.collect()
        gc.freeze()  # a collection in a fork would touch, and so copy, all that there is
        return {}

    def entries(self) -> Json:
        """Name the cases."""
        return {"entries": [[entry.name, entry.group] for entry in self._entries]}

    def examine(self, name: str, group: str) -> Json:
        """Run one case."""
        assert self._suite is not None
        suite = self._suite
        try:
            return fork.answer(lambda: _examined(suite, name, group).to_json(), self._limits)
        except ChildError as error:
            return Result(name, group, Verdict.ERROR, self._death(error)).to_json()

    def _death(self, error: ChildError) -> str:
        if error.timed_out:
            return f"no answer in {self._limits.seconds:g} s"
        return f"its process ended with {error.code}"


def _examined(suite: Suite, name: str, group: str) -> Result:
    start = time.perf_counter()
    result = judged(name, group, lambda: suite.examine(name))
    return replace(result, seconds=round(time.perf_counter() - start, 3))


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
