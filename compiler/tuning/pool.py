"""Processes that build and run candidates, and what came of each candidate.

A candidate that crashes, hangs or eats memory is killed alone: it gets its verdict, a new process
takes the place of the one that died, and the rest goes on.  Nothing is built while something is
timed, unless the machine has cores to spare for it.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from hybridc.compiler import scratch, settings
from hybridc.compiler.child import Child, ChildError, Json, first_of
from hybridc.compiler.hardware import host
from hybridc.compiler.interfaces import Point
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.monitoring.timeline import Timeline
from hybridc.compiler.tuning import outcome, passes
from hybridc.compiler.tuning.drift import Drift
from hybridc.compiler.tuning.features import Matrix
from hybridc.compiler.tuning.kernel import Bench, Kernel
from hybridc.compiler.tuning.outcome import Keep, Limits, Measured, MeasureError
from hybridc.compiler.tuning.racing import Race
from hybridc.compiler.tuning.staff import DeadlineError, Staff
from hybridc.compiler.tuning.watched import Watched

_SEGMENT = 4  # candidates between two readings of the baseline
_JUST_NOW = 0.05  # seconds in which the pace does not change
_GLANCE = 1 / 3  # of a candidate's time, which tells the pace to 1 or 2 %
_REST = 0.1  # seconds between two measurements that are to be independent


class Pool:
    """The processes; a context manager that ends them and removes their files.

    `gpu` is what `CUDA_VISIBLE_DEVICES` is to them where they measure on a GPU: one alone.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - how to measure, and who is told
        self,
        threads: int,
        workers: int | None = None,
        race: Race | None = None,
        limits: Limits | None = None,
        timeline: Timeline | None = None,
        gpu: str | None = None,
    ) -> None:
        self.race = race or Race()
        self._glance = replace(self.race, seconds=_GLANCE * self.race.seconds)
        self.limits = limits or Limits.of_machine()
        cpus = sorted(host.allowed_cpus())
        timing, spare = cpus[:threads], cpus[threads:]
        self._workers = workers or max(1, min(8, len(spare) or host.cores()))
        self._overlap = len(spare) >= self._workers
        self._numbers = count()
        watched = self._watched = Watched(timeline or Timeline())
        scratch.sweep()
        self._folder = scratch.Folder("tune")
        self._path = Path(self._folder.name)
        environment, memory = settings.environment(threads, gpu, self._path), self.limits.memory
        self._staff = Staff(timing, spare, environment, memory, watched, gpu is not None)

    def __enter__(self) -> Self:
        return self

    @property
    def folder(self) -> Path:
        """Where libraries and answers lie as long as the pool is open."""
        return self._path

    @property
    def processes(self) -> tuple[int, ...]:
        """The numbers of the processes at work."""
        return tuple(child.number for child in self._staff.children)

    def end_at(self, when: float) -> None:
        """Raise DeadlineError from then on, by `time.monotonic`, wherever something is waited for.

        What was measured until then is kept, as where the work is interrupted.
        """
        self._staff.until = when

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for child in self._staff.children:
            child.kill()
        self._folder.cleanup()

    def open(self, kernel: Kernel) -> Bench:
        """Run the unscheduled function: its answer is what candidates are held to.

        Raises MeasureError where it cannot be built or run.
        """
        self._staff.have(self._workers)
        number = next(self._numbers)
        file, wanted, library = (self._path / f"{number}.{kind}" for kind in ("json", "npz", "so"))
        kernel.save(file)
        self._watched.name(file, kernel.name)
        for _, made in self._build(file, [None]):
            if not isinstance(made, Path):
                raise MeasureError(f"{kernel.name} cannot be built unscheduled: {made.detail}")
            library = made
        request = {"do": "reference", "kernel": str(file), "library": str(library)}
        # Unscheduled loops are some hundred times slower than good ones.
        answer = self._run({**request, "wanted": str(wanted)}, 20 * self.limits.run)
        if isinstance(answer, Measured):
            raise MeasureError(f"{kernel.name} cannot be run unscheduled: {answer.detail}")
        library.unlink()
        return Bench(kernel, file, wanted, self.limits.run + 4 * answer["seconds"])

    def set_baseline(self, bench: Bench, point: Point, seconds: float | None = None) -> Measured:
        """Measure what the machine's pace is read from; `seconds` is its time by the log, if any.

        It is measured until its two fastest times agree, or the time is used up.  A point that
        fails cannot serve: the kernel has no baseline then.
        """
        _, made = next(self._build(bench.file, [point]))
        if isinstance(made, Measured):
            return made
        taken = [self._time(bench, point, made, None)]
        with suppress(DeadlineError):  # what was measured until then is kept
            while taken[-1].verdict is Verdict.OK and not passes.agreed(taken):
                time.sleep(_REST)
                taken.append(self._time(bench, point, made, None))
        if taken[-1].verdict is not Verdict.OK:
            return taken[-1]
        result = passes.combined(taken)
        bench.baseline, bench.point, bench.drift = made, point, Drift(seconds)
        bench.drift.read(time.monotonic(), result.seconds)
        return result

    def features(self, bench: Bench, points: Sequence[Point]) -> Matrix | None:
        """What the cost model sees of points; None where the rule cannot show one of them."""
        size = -(-len(points) // self._workers)
        shares = [points[first : first + size] for first in range(0, len(points), size)]
        files = [self._path / f"{next(self._numbers)}.npy" for _ in shares]
        asked = [
            {"do": "features", "kernel": str(bench.file), "points": list(share), "rows": str(rows)}
            for share, rows in zip(shares, files, strict=True)
        ]
        answers = self._staff.build_all(asked, self.limits.build)
        if any(isinstance(answer, Measured) or "error" in answer for answer in answers):
            return None
        return np.concatenate([np.load(rows) for rows in files])

    def measure(
        self, bench: Bench, points: Sequence[Point], incumbent: float | None, keep: Keep
    ) -> None:
        """Build, check and time points; `incumbent` is the time that a point has to beat.

        `keep` is given each result as soon as there is one, and where the work is interrupted
        those that were measured until then.  Times are set against the baseline, which is among the
        results where it turns out that it was disturbed when it was measured.
        """
        bench.looks, bench.lowered = [], False
        waiting: list[tuple[Point, Path]] = []
        built: Iterable[tuple[Any, Path | Measured]] = self._build(bench.file, points)
        try:
            for point, made in built if self._overlap else list(built):
                if isinstance(made, Measured):
                    keep(made)
                    continue
                waiting.append((point, made))
                if len(waiting) == _SEGMENT:
                    self._segment(bench, waiting, incumbent, keep)
                    waiting = []
            if waiting:
                self._segment(bench, waiting, incumbent, keep)
        finally:  # or what was measured until now seems faster than the baseline
            if bench.lowered:
                keep(replace(passes.combined(bench.looks), point=bench.point))

    def _segment(
        self, bench: Bench, built: Sequence[tuple[Point, Path]], incumbent: float | None, keep: Keep
    ) -> None:
        """Time some candidates in passes, with a look at the baseline between two of them."""
        taken: dict[Path, list[Measured]] = {library: [] for _, library in built}
        slow: dict[Path, list[Measured]] = {library: [] for _, library in built}
        timed: dict[Path, tuple[float, Measured]] = {}  # of the pass under way
        good = 0

        def sort() -> None:
            for library, (when, result) in timed.items():
                samples = bench.drift.corrected(when, result.seconds)
                place = taken if bench.drift.steady or not samples else slow
                place[library].append(replace(result, seconds=samples))
            timed.clear()

        try:
            for _ in range(passes.MOST):
                self._look(bench)
                for point, library in built:
                    if not passes.out(taken[library], incumbent):
                        result = self._time(bench, point, library, incumbent)
                        timed[library] = time.monotonic(), result
                self._look(bench)
                sort()
                good += bench.drift.steady
                if good == passes.ENOUGH:
                    break
        finally:
            sort()  # what an interrupted pass has
            found = {library: taken[library] or slow[library] for _, library in built}
            passes.deliver(built, found, keep)

    def _look(self, bench: Bench) -> None:
        """Read the pace, unless that was done just now."""
        if bench.baseline is None or time.monotonic() - bench.drift.last < _JUST_NOW:
            return
        result = self._time(bench, {}, bench.baseline, None, self._glance)
        if result.verdict is not Verdict.OK:
            return
        bench.looks.append(result)
        bench.drift.read(time.monotonic(), result.seconds)
        if bench.drift.overstated:
            bench.drift.lower()
            bench.lowered = True

    def _time(
        self,
        bench: Bench,
        point: Point,
        library: Path,
        incumbent: float | None,
        race: Race | None = None,
    ) -> Measured:
        known, pace = library == bench.baseline, bench.drift.pace(time.monotonic())
        request = {
            "do": "measure",
            "kernel": str(bench.file),
            "library": str(library),
            "wanted": None if known else str(bench.wanted),
            "race": (race or self.race).to_json(),
            "incumbent": None if known or incumbent is None else incumbent * pace,
        }
        answer = self._run(request, bench.limit)
        if isinstance(answer, Measured):
            return Measured(point, answer.verdict, (), answer.detail)
        seconds = tuple(answer.get("seconds", ()))
        verdict, detail = Verdict(answer["verdict"]), answer.get("detail", "")
        return Measured(point, verdict, seconds, detail, answer.get("disturbed", False))

    def _run(self, request: Json, limit: float) -> dict[str, Any] | Measured:
        """Ask the runner; a Measured says how it failed."""
        runner = self._staff.runner
        runner.send(request, self._staff.allowed(limit))
        answer = self._staff.answer(runner)
        if isinstance(answer, Measured) or "error" not in answer:
            return answer
        if answer["kind"] == "LostGpuError":  # its process can run nothing any more
            self._staff.forget(runner)
        elif answer["kind"] != "CandidateError":
            raise MeasureError(f"a kernel could not be measured: {answer['error']}")
        return outcome.failed(answer, Verdict.CRASH)

    def _build(
        self, file: Path, points: Sequence[Point | None]
    ) -> Iterator[tuple[Any, Path | Measured]]:
        """Build points side by side, each as soon as a process is free; in order of completion."""
        self._staff.have(self._workers)
        todo = list(reversed(points))
        at_work: dict[Child, tuple[Point | None, Path]] = {}
        try:
            while todo or at_work:
                for child in self._staff.builders:
                    if todo and child not in at_work:
                        at_work[child] = self._begin(child, file, todo.pop())
                for child in first_of(list(at_work), 1.0):
                    answer = self._finished(child, bool(todo))
                    if answer is not None:
                        point, library = at_work.pop(child)
                        yield point, outcome.made(answer, point, library)
        finally:  # nobody waits for their answers any more
            for child in at_work.keys() & set(self._staff.builders):
                self._staff.forget(child)

    def _begin(self, child: Child, file: Path, point: Point | None) -> tuple[Point | None, Path]:
        """Have a process build a point; where its library will be."""
        library = self._path / f"{next(self._numbers)}.so"
        request = {"do": "build", "kernel": str(file), "point": point, "library": str(library)}
        child.send(request, self._staff.allowed(self.limits.build))
        return point, library

    def _finished(self, child: Child, needed: bool) -> dict[str, Any] | Measured | None:
        """A builder's answer if it is complete; one that died is replaced where it is needed."""
        try:
            return child.poll()
        except ChildError as error:
            ended = self._staff.gone(child, error)
            if needed:
                self._staff.have(len(self._staff.builders) + 1)
            return ended
