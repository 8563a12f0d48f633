"""Tune kernels: propose, measure and log, until trials, time or expected gains are used up.

All state is in the log, so a tuning that was stopped, for whatever reason, continues from there.
"""

import os
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from hybridc.compiler.interfaces import Point, Strategy
from hybridc.compiler.log import claims, keys
from hybridc.compiler.log.record import Verdict, who
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning import imported, recording, run_off, strategies, warm_start
from hybridc.compiler.tuning import tasks as tuning
from hybridc.compiler.tuning.candidates.bench import Bench
from hybridc.compiler.tuning.candidates.outcome import CandidateResult, Keep, MeasureError
from hybridc.compiler.tuning.candidates.pool import Pool
from hybridc.compiler.tuning.candidates.processes import DeadlineError
from hybridc.compiler.tuning.claimed import LEASE, claimed
from hybridc.compiler.tuning.options import Budget
from hybridc.compiler.tuning.progress import Progress, Update
from hybridc.compiler.tuning.result import Tuned
from hybridc.compiler.tuning.tasks import Task

ROUND = 8  # trials in a round: a killed tuner loses at most these
_PATIENCE = 0.5  # seconds between two looks at what another tuner claims
LATE = "the time is used up"


@dataclass
class Tuner:
    """Tunes kernels by a strategy, in a pool, into a log."""

    tasks: Sequence[Task]
    log: TuningLog
    strategy: Strategy
    pool: Pool
    budget: Budget = field(default_factory=Budget)
    progress: Progress = lambda _: None
    lease: float = LEASE

    def __post_init__(self) -> None:
        self._owner = f"{who()}/{os.getpid()}/{time.time_ns()}"
        self._benches: dict[Task, Bench] = {}
        self._faults: dict[Task, str] = {}
        self._given_up: dict[Task, str] = {}
        self._measured = 0
        self._disturbed = 0
        self._failed: Counter[str] = Counter()
        self._recorder = recording.Recorder(self.log, self.strategy.seed)
        self._start = time.monotonic()
        self.pool.end_at(self._start + self.budget.limit)

    def run(self) -> Tuned:
        """Tune; after Ctrl-C, the measurements so far are in the log."""
        try:
            return self._result(self._run())
        except DeadlineError:
            self._recall(*self._every)
            return self._result(LATE)
        except KeyboardInterrupt:
            self._recorder.save()
            self._recall(*self._every)
            return self._result("interrupted", interrupted=True)

    def _run(self) -> str:
        """Give turns until there is a reason to stop, and return it."""
        if not self.tasks:
            return "there is no kernel to tune (those of open sizes take their rules' defaults)"
        if self._trials:
            for task in self.tasks:
                task.search = imported.hinted(task, self.log)
                task.rivals = imported.rivals(task, self.log)
        self._recall(*self._every)
        while not (reason := self._end()):
            busy: set[Task] = set()
            while not self._turn(busy):
                if busy.issuperset(self._wanting()):
                    time.sleep(_PATIENCE)
                    break
        for task in self._open():
            self._run_off(task)
        return reason

    def confirm(self, tasks: Sequence[Task]) -> None:
        """Measure the defaults of tasks again, one after the other, while there is time."""
        with suppress(DeadlineError):
            for task in tasks:
                if task.default is not None and self._left > 0:
                    self._again(task, [task.default.point])
                    self._recall(task)

    def visits(self, task: Task) -> int:
        """How often a task's default was measured."""
        found, here = recording.known(task, self.log), (task.kernel.rule_name, task.kernel.mode)
        alike = [record for record in found if (record.rule, record.mode) == here]
        return sum(task.is_default(record.point) for record in alike)

    def _run_off(self, task: Task) -> None:
        """Measure the winner again beside the default, and any point that then wins instead."""
        _, target, toolchain = recording.described(task)
        for _ in range(run_off.MOST):
            points = run_off.contenders(task, self.log, target, toolchain)
            if not points or self._left <= 0 or not self._again(task, points):
                break
        self._recall(task)

    def _again(self, task: Task, points: Sequence[Point]) -> bool:
        """Measure points again; False if that is impossible, or another tuner has the kernel."""
        with claimed(self.log, self._work(task), self._owner, self.lease) as ours:
            if not ours or (bench := self._bench(task)) is None:
                return False
            with self._kept(task, trials=0) as keep:
                self.pool.measure(bench, points, None, keep)
        return True

    def _result(self, reason: str, *, interrupted: bool = False) -> Tuned:
        drifts = [bench.drift.worst for bench in self._benches.values()]
        drift = max(drifts, key=abs, default=0.0)
        return Tuned(
            tasks=tuple(self.tasks),
            measured=self._measured,
            failed=dict(self._failed),
            disturbed=self._disturbed,
            reason=reason,
            interrupted=interrupted,
            drift=drift,
            skipped=tuple(self._given_up.values()),
            seconds=time.monotonic() - self._start,
            faults=self._faults,
        )

    @property
    def _every(self) -> list[Task]:
        """The tasks and their rivals."""
        return [each for task in self.tasks for each in (task, *task.rivals)]

    def _open(self) -> list[Task]:
        return [task for task in self._every if task not in self._given_up]

    def _wanting(self) -> list[Task]:
        """The tasks that may get a round: those with trials left, or with work that needs none.

        Measuring a default takes no trial, and neither do the unchecked points of rivals.
        """
        return [each for each in self._open() if each.fresh or each.waiting or self._due(each) > 0]

    def _due(self, task: Task) -> int:
        """How many trials a task may still get."""
        return self._rest if task in self.tasks else 0

    @property
    def _trials(self) -> int:
        return self.budget.trials * len(self.tasks)

    @property
    def _rest(self) -> int:
        """How many trials are left."""
        return self._trials - sum(task.trials for task in self.tasks)

    def _end(self) -> str:
        """Why nothing more is measured; empty while there is something to measure."""
        if not self._open():
            return "no kernel can be measured"
        if not self._wanting():
            return "all trials are done"
        if self._left <= 0:
            return LATE
        if tuning.choose(self._wanting(), ROUND) is None:
            return "the expected gain is within the noise"
        return ""

    @property
    def _left(self) -> float:
        """Seconds of the budget that are left."""
        return self._start + self.budget.limit - time.monotonic()

    def _fitting(self) -> int:
        """How many trials fit into the remaining time, at the pace so far; at least one."""
        pace = (time.monotonic() - self._start) / max(self._measured, 1)
        return int(min(ROUND, max(1.0, self._left / pace))) if pace else ROUND

    def _work(self, task: Task) -> str:
        """The name of the claim on a task while it is measured."""
        series = [described.key for described in recording.described(task)]
        return claims.name(*series, task.kernel.rule_name, task.kernel.mode)

    def _turn(self, busy: set[Task]) -> bool:
        """Give a round to the most promising task that is free; False if none is."""
        free = [task for task in self._wanting() if task not in busy]
        if (task := tuning.choose(free, ROUND)) is None:
            busy.update(free)
            return False
        with claimed(self.log, self._work(task), self._owner, self.lease) as ours:
            if ours:
                self._round(task)
            else:
                busy.add(task)
            self._recall(task)
            if ours:  # while it is claimed, no other tuner reports this kernel
                self.strategy.observe(task.search, task.history)
        return ours

    def _round(self, task: Task) -> None:
        """Measure what the strategy proposes, and log it whatever happens."""
        self._recall(task)  # another tuner may have been at it until now
        if (bench := self._bench(task)) is None:
            return
        known = task.default is not None
        count = min(self._fitting(), max(self._due(task), task.waiting)) if known else 1
        if count <= 0:  # another tuner has used all trials in the meantime
            return
        search = task.search
        if known:
            look = partial(self.pool.features, bench)
            near = warm_start.hints(task, self.tasks, self.log, keys.of_toolchain())
            score = task.predictor.score(task.history, look)
            search = replace(search, hints=(*search.hints, *near), score=score)
        points = strategies.proposed(self.strategy, search, task.history, count)
        task.proposed, task.exhausted = known, not points
        with self._kept(task) as keep:
            if known:
                best = task.best.seconds if task.best else None
                self.pool.measure(bench, points, best, keep)
            elif points:
                keep(self.pool.set_baseline(bench, points[0]))

    @contextmanager
    def _kept(self, task: Task, trials: int = 1) -> Generator[Keep]:
        """Collect what is measured in the block, and write it into the log whatever happens.

        Each measurement counts as so many `trials`, unless it is of the default.
        """
        found: list[CandidateResult] = []
        default = task.default

        def keep(measured: CandidateResult) -> None:
            found.append(measured)
            self._recorder.keep(task, measured)
            self._measured += 0 if default and task.is_default(measured.point) else trials
            self._disturbed += measured.disturbed
            if measured.verdict is not Verdict.OK:
                self._failed[measured.verdict] += 1
                if task.is_default(measured.point):
                    self._faults[task] = measured.detail
            self._tell(task, found, trials)

        try:
            yield keep
        finally:
            self._recorder.save()

    def _bench(self, task: Task) -> Bench | None:
        """The kernel's bench, with the default as its baseline if the log has its time.

        None if nothing can be measured: the task is given up.
        """
        try:
            if task not in self._benches:
                bench = self._benches[task] = self.pool.open(task.kernel)
                if task.default and task.default.seconds:
                    self.pool.set_baseline(bench, task.default.point, task.default.seconds)
        except MeasureError as error:
            self._given_up[task] = str(error)
            return None
        return self._benches[task]

    def _recall(self, *tasks: Task) -> None:
        """Update tasks from the log."""
        for task in tasks:
            task.remember(recording.known(task, self.log))

    def _tell(self, task: Task, found: Sequence[CandidateResult], trials: int) -> None:
        times = [m.time for m in found if m.time] + ([task.best.seconds] if task.best else [])
        best = min((seconds for seconds in times if seconds), default=None)
        counts = task in self.tasks and trials
        new = counts * sum(not task.is_default(each.point) for each in found)
        update = Update(
            kernel=tuning.name_of(task),
            measured=self._measured,
            done=self._trials - max(0, self._rest - new),
            trials=self._trials,
            best=best,
            gain=tuning.gain_of(self.tasks),
            seconds=time.monotonic() - self._start,
        )
        self.progress(update)
