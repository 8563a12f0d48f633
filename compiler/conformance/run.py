"""Run a suite's cases in child processes; a case that crashes or hangs is lost alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Self

from hybridc.compiler import settings
from hybridc.compiler.conformance.record import Record
from hybridc.compiler.conformance.suite import Entry, Result, Verdict
from hybridc.compiler.errors import InputError
from hybridc.compiler.processes.child import Child, ChildError, Json, first_of
from hybridc.compiler.processes.fork import Limits

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
    core: bool = False
    text: str = ""  # which the names of the cases contain

    def __enter__(self) -> Self:
        self._children: list[Child] = []
        self._busy: dict[Child, Entry] = {}
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()

    def entries(self) -> list[Entry]:
        """The suite's cases that are wanted.  Raises InputError if there are none."""
        child = self._started(self._start())
        answer = child.ask({"do": "entries"}, _START)
        child.deadline = _IDLE
        _check(answer)
        if not answer["entries"]:
            raise InputError(f"no case of {self.suite} has {self.text!r} in its name")
        return [Entry(*pair) for pair in answer["entries"]]

    def results(self, entries: Sequence[Entry], tell: Tell) -> Iterator[Result]:
        """Run cases, each result as soon as it is there, also while other children still start."""
        waiting = list(reversed(entries))
        self._feed(waiting)
        done = 0
        while done < len(entries):
            for child in first_of([c for c in self._children if c.deadline != _IDLE], 1.0):
                if child not in self._busy:
                    self._started(child)
                elif (result := self._poll(child)) is not None:
                    done += 1
                    tell(f"{done}/{len(entries)} {result.verdict}: {result.name}")
                    yield result
            self._feed(waiting)

    def _feed(self, waiting: list[Entry]) -> None:
        """Start the children that are missing, and give a case to each that has none."""
        while len(self._children) < min(self.jobs, len(waiting) + len(self._busy)):
            self._start()
        for child in self._children:
            if waiting and child.deadline == _IDLE:
                self._next(child, waiting)

    def _start(self) -> Child:
        child = Child(_MODULE, {**settings.environment(1), **_SINGLE})
        self._children.append(child)
        begin = {
            "do": "begin",
            "suite": self.suite,
            "wanted": {"core": self.core, "text": self.text},
            "limits": asdict(self.limits),
        }
        child.send(begin, _START)
        return child

    def _started(self, child: Child) -> Child:
        """The child, once it is ready."""
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


def fill(kept: Record, runner: Runner, tell: Tell) -> tuple[list[Entry], bool]:
    """Run a runner's cases as far as a record lacks them.

    Returns these cases, and whether Ctrl-C kept some from running.
    """
    entries: list[Entry] = []
    try:
        with runner:
            entries = runner.entries()
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
