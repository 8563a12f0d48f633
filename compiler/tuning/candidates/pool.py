"""Processes that build and run candidates, and what came of each candidate.

A candidate that crashes, hangs or exhausts memory fails alone: it gets its verdict, a new process
replaces the one that died, and the others continue.  Nothing is built while something is timed,
unless the machine has cores to spare.
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

from hybridc.compiler import settings
from hybridc.compiler.filesystem import scratch
from hybridc.compiler.hardware import host
from hybridc.compiler.interfaces import Point
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.monitoring.timeline import Timeline
from hybridc.compiler.processes.child import Json
from hybridc.compiler.tuning.candidates import outcome, repeats
from hybridc.compiler.tuning.candidates.bench import Bench
from hybridc.compiler.tuning.candidates.drift import Drift
from hybridc.compiler.tuning.candidates.outcome import CandidateResult, Keep, Limits, MeasureError
from hybridc.compiler.tuning.candidates.processes import DeadlineError, Processes
from hybridc.compiler.tuning.candidates.racing import Race
from hybridc.compiler.tuning.candidates.spans import Spans
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.prediction.features import Matrix

_SEGMENT = 4  # candidates between two readings of the baseline
_JUST_NOW = 0.05  # seconds in which the pace does not change
_GLANCE = 1 / 3  # of a candidate's time, which is enough to read the pace to 1 or 2 %
_REST = 0.1  # seconds between two measurements that are to be independent


class Pool:
    """Builds, checks and times candidates; a context manager that ends its processes.

    `gpu` is the one GPU to measure on, as a value of `CUDA_VISIBLE_DEVICES`; None for the CPU.
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
        self.race, self.limits = race or Race(), limits or Limits.of_machine()
        self._glance = replace(self.race, seconds=_GLANCE * self.race.seconds)
        cpus = sorted(host.allowed_cpus())
        timing, spare = cpus[:threads], cpus[threads:]
        self._workers = workers or max(1, min(8, len(spare) or host.cores()))
        self._overlap = len(spare) >= self._workers
        self._numbers = count()
        spans = self._spans = Spans(timeline or Timeline())
        scratch.prepare()
        self._folder = scratch.Folder("tune")
        self._path = Path(self._folder.name)
        environment, memory = settings.environment(threads, gpu, self._path), self.limits.memory
        self._processes = Processes(timing, spare, environment, memory, spans, gpu is not None)

    def __enter__(self) -> Self:
        return self

    @property
    def folder(self) -> Path:
        """The folder of libraries and answers, which exists while the pool is open."""
        return self._path

    @property
    def processes(self) -> tuple[int, ...]:
        """The ids of the processes."""
        return tuple(child.number for child in self._processes.children)

    def end_at(self, when: float) -> None:
        """Set the deadline (of `time.monotonic`) after which any waiting raises DeadlineError.

        What was measured until then is kept, as after an interruption.
        """
        self._processes.until = when

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for child in self._processes.children:
            child.kill()
        self._folder.cleanup()

    def open(self, kernel: Kernel) -> Bench:
        """Run the unscheduled function, with whose answer those of candidates are compared.

        Raises MeasureError if it cannot be built or run.
        """
        self._processes.have(self._workers)
        number = next(self._numbers)
        file, wanted, library = (self._path / f"{number}.{kind}" for kind in ("json", "npz", "so"))
        kernel.save(file)
        self._spans.name(file, kernel.name)
        for _, made in self._build(file, [None]):
            if not isinstance(made, Path):
                raise MeasureError(f"{kernel.name} cannot be built unscheduled: {made.detail}")
            library = made
        request = {"do": "reference", "kernel": str(file), "library": str(library)}
        # Unscheduled loops are some hundred times slower than good ones.
        answer = self._run({**request, "wanted": str(wanted)}, 20 * self.limits.run)
        if isinstance(answer, CandidateResult):
            raise MeasureError(f"{kernel.name} cannot be run unscheduled: {answer.detail}")
        library.unlink()
        return Bench(kernel, file, wanted, self.limits.run + 4 * answer["seconds"])

    def set_baseline(
        self, bench: Bench, point: Point, seconds: float | None = None
    ) -> CandidateResult:
        """Measure the baseline, which shows the machine's pace; `seconds` is its time in the log.

        It is measured until its two fastest times agree, or the time is used up.  If the point
        fails, the kernel has no baseline.
        """
        _, made = next(self._build(bench.file, [point]))
        if isinstance(made, CandidateResult):
            return made
        taken = [self._time(bench, point, made, None)]
        with suppress(DeadlineError):  # what was measured until then is kept
            while taken[-1].verdict is Verdict.OK and not repeats.agreed(taken):
                time.sleep(_REST)
                taken.append(self._time(bench, point, made, None))
        if taken[-1].verdict is not Verdict.OK:
            return taken[-1]
        result = repeats.combined(taken)
        bench.baseline, bench.point, bench.drift = made, point, Drift(seconds)
        bench.drift.read(time.monotonic(), result.seconds)
        return result

    def features(self, bench: Bench, points: Sequence[Point]) -> Matrix | None:
        """The cost model's features of points; None if the rule cannot schedule one of them."""
        size = -(-len(points) // self._workers)
        shares = [points[first : first + size] for first in range(0, len(points), size)]
        files = [self._path / f"{next(self._numbers)}.npy" for _ in shares]
        asked = [
            {"do": "features", "kernel": str(bench.file), "points": list(share), "rows": str(rows)}
            for share, rows in zip(shares, files, strict=True)
        ]
        answers = dict(self._processes.build(asked, self._workers, self.limits.build)).values()
        if any(isinstance(answer, CandidateResult) or "error" in answer for answer in answers):
            return None
        return np.concatenate([np.load(rows) for rows in files])

    def measure(
        self, bench: Bench, points: Sequence[Point], incumbent: float | None, keep: Keep
    ) -> None:
        """Build, check and time points; `incumbent` is the time that a point has to beat.

        `keep` is called with each result as soon as it is final; after an interruption, with those
        measured until then.  Times are corrected by the baseline's.  If that turns out to have been
        disturbed when it was measured, its new time is among the results.
        """
        bench.looks, bench.lowered = [], False
        waiting: list[tuple[Point, Path]] = []
        built: Iterable[tuple[Any, Path | CandidateResult]] = self._build(bench.file, points)
        try:
            for point, made in built if self._overlap else list(built):
                if isinstance(made, CandidateResult):
                    keep(made)
                    continue
                waiting.append((point, made))
                if len(waiting) == _SEGMENT:
                    self._segment(bench, waiting, incumbent, keep)
                    waiting = []
            if waiting:
                self._segment(bench, waiting, incumbent, keep)
        finally:  # else what was measured so far would seem faster than the baseline
            if bench.lowered:
                keep(replace(repeats.combined(bench.looks), point=bench.point))

    def _segment(
        self, bench: Bench, built: Sequence[tuple[Point, Path]], incumbent: float | None, keep: Keep
    ) -> None:
        """Time some candidates in passes, and the baseline before and after each pass."""
        taken: dict[Path, list[CandidateResult]] = {library: [] for _, library in built}
        slow: dict[Path, list[CandidateResult]] = {library: [] for _, library in built}
        timed: dict[Path, tuple[float, CandidateResult]] = {}  # of the pass under way
        good = 0

        def sort() -> None:
            for library, (when, result) in timed.items():
                samples = bench.drift.corrected(when, result.seconds)
                place = taken if bench.drift.steady or not samples else slow
                place[library].append(replace(result, seconds=samples))
            timed.clear()

        try:
            for _ in range(repeats.MOST):
                self._look(bench)
                for point, library in built:
                    if not repeats.dropped(taken[library], incumbent):
                        result = self._time(bench, point, library, incumbent)
                        timed[library] = time.monotonic(), result
                self._look(bench)
                sort()
                good += bench.drift.steady
                if good == repeats.ENOUGH:
                    break
        finally:
            sort()  # what an interrupted pass has
            found = {library: taken[library] or slow[library] for _, library in built}
            repeats.deliver(built, found, keep)

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
    ) -> CandidateResult:
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
        if isinstance(answer, CandidateResult):
            return CandidateResult(point, answer.verdict, (), answer.detail)
        seconds = tuple(answer.get("seconds", ()))
        verdict, detail = Verdict(answer["verdict"]), answer.get("detail", "")
        return CandidateResult(point, verdict, seconds, detail, answer.get("disturbed", False))

    def _run(self, request: Json, limit: float) -> dict[str, Any] | CandidateResult:
        """Ask the runner; a CandidateResult says how it failed."""
        runner = self._processes.runner
        runner.send(request, self._processes.allowed(limit))
        answer = self._processes.answer(runner)
        if isinstance(answer, CandidateResult) or "error" not in answer:
            return answer
        if answer["kind"] == "LostGpuError":  # its process can run nothing any more
            self._processes.forget(runner)
        elif answer["kind"] != "CandidateError":
            raise MeasureError(f"a kernel could not be measured: {answer['error']}")
        return outcome.failed(answer, Verdict.CRASH)

    def _build(
        self, file: Path, points: Sequence[Point | None]
    ) -> Iterator[tuple[Any, Path | CandidateResult]]:
        """Build points in parallel; in order of completion."""
        libraries = [self._path / f"{next(self._numbers)}.so" for _ in points]
        requests = [
            {"do": "build", "kernel": str(file), "point": point, "library": str(library)}
            for point, library in zip(points, libraries, strict=True)
        ]
        answers = self._processes.build(requests, self._workers, self.limits.build)
        for place, answer in answers:
            yield points[place], outcome.made(answer, points[place], libraries[place])
