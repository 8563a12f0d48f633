"""The processes of a pool: builders, the runner of candidates, and the deadline of them all."""

import time
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any

from hybridc.compiler.hardware import host
from hybridc.compiler.processes.child import Child, ChildError, Json, first_of
from hybridc.compiler.tuning.candidates import outcome
from hybridc.compiler.tuning.candidates.outcome import CandidateResult, MeasureError
from hybridc.compiler.tuning.candidates.spans import Spans

_MODULE = "hybridc.compiler.tuning.candidates.worker"
_START = 120.0  # seconds in which a process imports TVM, on a busy machine


class DeadlineError(Exception):
    """The time of a tuning is used up; what was running was stopped, and has no verdict."""


class Processes:
    """The processes; after `until` (of `time.monotonic`) waiting for one raises DeadlineError.

    `timing` are the CPUs of the runner, `spare` those of the builders; all CPUs if empty.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - who works where, and on what
        self,
        timing: Sequence[int],
        spare: Sequence[int],
        environment: Mapping[str, str],
        memory: int,
        spans: Spans,
        on_gpu: bool = False,
    ) -> None:
        self.builders: list[Child] = []
        self.until = inf
        self._runner: Child | None = None
        self._cpus = {"runner": timing, "builder": spare}
        self._environment, self._memory, self._spans = environment, memory, spans
        self._on_gpu = on_gpu

    @property
    def children(self) -> tuple[Child, ...]:
        """The processes that are alive."""
        return tuple(child for child in (*self.builders, self._runner) if child)

    @property
    def runner(self) -> Child:
        """The process that runs candidates; started if there is none."""
        self.have(len(self.builders))
        assert self._runner is not None
        return self._runner

    def have(self, number: int) -> None:
        """Ensure that there are this many builders, and the runner; new ones start in parallel."""
        if len(self.builders) >= number and self._runner is not None:
            return
        limit = self.allowed(_START)
        new = [self._start("builder", limit) for _ in range(number - len(self.builders))]
        self.builders += new
        if self._runner is None:
            self._runner = self._start("runner", limit)
            new.append(self._runner)
        for child in new:
            self._begun(child)

    def allowed(self, seconds: float) -> float:
        """The seconds that a request may take: at most those that are left.

        Raises DeadlineError if none are.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            raise DeadlineError
        return min(seconds, left)

    def answer(self, child: Child) -> dict[str, Any] | CandidateResult:
        """A process's answer; if it ended, the verdict on the candidate that it was working on."""
        try:
            return child.receive()
        except ChildError as error:
            return self.gone(child, error)

    def build(
        self, requests: Sequence[Json], workers: int, seconds: float
    ) -> Iterator[tuple[int, dict[str, Any] | CandidateResult]]:
        """The places of requests with their answers, in order of completion.

        Each request goes to the first of so many builders that is free, and may take `seconds`.
        """
        self.have(workers)
        todo = list(reversed(range(len(requests))))
        at_work: dict[Child, int] = {}
        try:
            while todo or at_work:
                for child in self.builders:
                    if todo and child not in at_work:
                        place = todo.pop()
                        child.send(requests[place], self.allowed(seconds))
                        at_work[child] = place
                for child in first_of(list(at_work), 1.0):
                    answer = self._finished(child, bool(todo))
                    if answer is not None:
                        yield at_work.pop(child), answer
        finally:  # their answers are no longer needed
            for child in at_work.keys() & set(self.builders):
                self.forget(child)

    def _finished(self, child: Child, needed: bool) -> dict[str, Any] | CandidateResult | None:
        """A builder's answer if it is complete; a builder that died is replaced if `needed`."""
        try:
            return child.poll()
        except ChildError as error:
            ended = self.gone(child, error)
            if needed:
                self.have(len(self.builders) + 1)
            return ended

    def gone(self, child: Child, error: ChildError) -> CandidateResult:
        """Forget a process that ended, and give the verdict on what it was working on.

        Raises DeadlineError if it was ended because the time is used up.
        """
        self._remove(child)
        if error.timed_out and time.monotonic() >= self.until:
            raise DeadlineError from error
        return outcome.ended(error)

    def forget(self, child: Child) -> None:
        """Kill a process, so that another one takes its place."""
        child.kill()
        self._remove(child)

    def _remove(self, child: Child) -> None:
        if child is self._runner:
            self._runner = None
        else:
            self.builders.remove(child)

    def _start(self, role: str, limit: float) -> Child:
        child = Child(_MODULE, self._environment, self._spans.by(role))
        cpus = list(self._cpus[role]) or sorted(host.allowed_cpus())
        # A GPU's driver maps all of its memory; what a candidate takes of that has other limits.
        memory = 0 if self._on_gpu and role == "runner" else self._memory
        child.send({"do": "begin", "memory": memory, "cpus": cpus}, limit)
        return child

    def _begun(self, child: Child) -> None:
        try:
            answer = child.receive()
        except ChildError as error:
            self.gone(child, error)
            raise MeasureError(f"no process for measuring could be started: {error}") from None
        if "error" in answer:
            raise MeasureError(f"no process for measuring could be started: {answer['error']}")
