"""Run a suite's cases in child processes; a case that crashes or hangs is lost alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from hybridc.compiler import settings
from hybridc.compiler.child import Child, ChildError, Json, first_of
from hybridc.compiler.conformance.record import Record
from hybridc.compiler.conformance.suite import Entry, Result, Verdict
from hybridc.compiler.errors import InputError
from hybridc.compiler.fork import Limits

_MODULE = "hybridc.compiler.conformance.examiner"
_START = 300.0  # seconds in which a child imports TVM and makes a suite, on a busy machine
_GRACE = 60.0  # in which it tells what became of a case whose own time is over
_IDLE = float("inf")  # the deadline of a child that owes no answer
# Cases run in forks, which threads do not survive: no library may start any before.
_SINGLE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

Tell = Callable[[str], None]


@dataclass
class Runner:
    """The children; a context manager that ends them."""

    suite: str
    limits: Limits = field(default_factory=Limits)
    jobs: int = 1

    def __enter__(self) -> Self:
        self._children: list[Child] = []
        self._busy: dict[Child, Entry] = {}
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()

    def entries(self, core: bool, text: str = "") -> list[Entry]:
        """The suite's cases whose names contain a text.  Raises InputError where there are none."""
        child = self._started(self._start())
        answer = child.ask({"do": "entries", "core": core}, _START)
        child.deadline = _IDLE
        _check(answer)
        found = [Entry(*pair) for pair in answer["entries"] if text in pair[0]]
        if not found:
            raise InputError(f"no case of {self.suite} has {text!r} in its name")
        return found

    def results(self, entries: Sequence[Entry], tell: Tell) -> Iterator[Result]:
        """Run cases, each result as soon as it is there."""
        waiting = list(reversed(entries))
        while len(self._children) < min(self.jobs, len(entries)):
            self._start()
        for child in self._children[: min(self.jobs, len(entries))]:
            self._next(self._started(child), waiting)
        done = 0
        while self._busy:
            for child in first_of(list(self._busy), 1.0):
                result = self._poll(child)
                if result is None:
                    continue
                done += 1
                tell(f"{done}/{len(entries)} {result.verdict}: {result.name}")
                yield result
                alive = child if child in self._children else None
                if waiting:
                    self._next(alive or self._started(self._start()), waiting)

    def _start(self) -> Child:
        child = Child(_MODULE, {**settings.environment(1), **_SINGLE})
        self._children.append(child)
        begin = {
            "do": "begin",
            "suite": self.suite,
            "seconds": self.limits.seconds,
            "memory": self.limits.memory,
        }
        child.send(begin, _START)
        return child

    def _started(self, child: Child) -> Child:
        """The child, once it is ready; those that are ready or at work are left alone."""
        if child.deadline != _IDLE:
            _check(child.receive())
            child.deadline = _IDLE
        return child

    def _next(self, child: Child, waiting: list[Entry]) -> None:
        entry = waiting.pop()
        self._busy[child] = entry
        request = {"do": "examine", "name": entry.name, "group": entry.group}
        child.send(request, self.limits.seconds + _GRACE)

    def _poll(self, child: Child) -> Result | None:
        """The child's answer, if it is there; that it is lost with its case should never happen."""
        entry = self._busy[child]
        try:
            answer = child.poll()
        except ChildError as error:
            del self._busy[child]
            self._children.remove(child)
            return Result(entry.name, entry.group, Verdict.ERROR, str(error))
        if answer is None:
            return None
        del self._busy[child]
        child.deadline = _IDLE
        _check(answer)
        return Result.from_json(answer)


def fill(
    kept: Record, runner: Runner, core: bool, text: str, tell: Tell
) -> tuple[list[Entry], bool]:
    """Run the cases whose names contain a text, as far as a record lacks them.

    Returns these cases, and whether Ctrl-C kept some from running.
    """
    entries: list[Entry] = []
    try:
        with runner:
            entries = runner.entries(core, text)
            lacking = [entry for entry in entries if entry.name not in kept.results]
            for result in runner.results(lacking, tell):
                kept.add(result)
    except KeyboardInterrupt:
        return entries, True
    return entries, False


def _check(answer: Json) -> None:
    """Raise what a child says is wrong with the suite itself."""
    if "error" in answer:
        raise InputError(answer["error"])
