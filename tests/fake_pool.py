"""A tuning that measures nothing: each point's time follows from its knobs."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faulty_rule
import pytest

from hybridc.compiler.interfaces import Point
from hybridc.compiler.log.access import open_log
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning import strategies, tasks
from hybridc.compiler.tuning.candidates.drift import Drift
from hybridc.compiler.tuning.candidates.outcome import CandidateResult, Keep, MeasureError
from hybridc.compiler.tuning.candidates.processes import DeadlineError
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.options import Budget
from hybridc.compiler.tuning.result import Tuned
from hybridc.compiler.tuning.tasks import Task
from hybridc.compiler.tuning.tuner import Tuner

SPACE = 22  # points of the faulty rule


def judged(point: Point) -> CandidateResult:
    """Some points fail."""
    fault = point["fault"]
    if fault in (2, 7):
        return CandidateResult(point, Verdict.CRASH, (), "it fell")
    seconds = 1e-3 * (1 + ((fault * 7 + point["other"] * 3) % 11) / 10)
    return CandidateResult(point, Verdict.OK, (seconds,) * 6)


@dataclass(eq=False)
class FakeBench:
    kernel: Kernel
    drift: Drift = field(default_factory=Drift)


@dataclass
class FakePool:
    """Takes the place of a pool of workers, and judges points as `judge` does."""

    pause: float = 0.0
    judge: Callable[[Point], CandidateResult] = judged
    points: list[Point] = field(default_factory=list[Point])
    during: Callable[[int], None] = lambda _: None
    broken: bool = False
    late: int | None = None  # the trial at which the time is used up
    end: float = 0.0

    def end_at(self, when: float) -> None:
        self.end = when

    def open(self, kernel: Kernel) -> FakeBench:
        if self.broken:
            raise MeasureError(f"{kernel.name} cannot be built unscheduled")
        return FakeBench(kernel)

    def features(self, bench: FakeBench, points: Sequence[Point]) -> None:
        """Nobody may look."""
        del bench, points

    def set_baseline(
        self, bench: FakeBench, point: Point, seconds: float | None = None
    ) -> CandidateResult:
        del bench
        if seconds is None:
            self.points.append(point)
        return self.judge(point)

    def measure(
        self, bench: FakeBench, points: Sequence[Point], incumbent: float | None, keep: Keep
    ) -> None:
        del bench, incumbent
        for point in points:
            if len(self.points) == self.late:
                raise DeadlineError
            time.sleep(self.pause)
            self.during(len(self.points))
            self.points.append(point)
            keep(self.judge(point))


def made(plugin: Path) -> list[Task]:
    return tasks.distinct([(faulty_rule.kernel(plugin), 3)])


def tuner(
    plugin: Path, opened: TuningLog, pool: Any, trials: int = SPACE - 1, **options: Any
) -> Tuner:
    chosen = strategies.catalogue().create("random")
    return Tuner(made(plugin), opened, chosen, pool, Budget(trials), **options)


def tune(plugin: Path, path: Path, pool: Any, trials: int = SPACE - 1, **options: Any) -> Tuned:
    with open_log(str(path), plugins=(plugin,)) as opened:
        return tuner(plugin, opened, pool, trials, **options).run()


def measured_in(path: Path, plugin: Path) -> Counter[tuple[tuple[str, int], ...]]:
    with open_log(str(path), plugins=(plugin,)) as opened:
        return Counter(tuple(sorted(record.point.items())) for record in opened.records())


def exhaustive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never stop early."""
    monkeypatch.setattr(tasks, "NOISE", -1.0)
