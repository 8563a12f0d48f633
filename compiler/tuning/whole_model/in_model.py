"""Time the points that were fastest alone once more where they are to run: in their model.

Alone, a kernel finds other data in the caches than in a model, and points rank in another order.
So the model is built with every kernel at its default, with each at its best other point, with each
at its second best, and so on.  These models are called in turn while each call of a kernel is
timed.  The log keeps the times, which go before those of kernels alone.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from statistics import fmean

from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.building.unscheduled import Unscheduled
from hybridc.compiler.hardware import host, load
from hybridc.compiler.log import claims
from hybridc.compiler.log.lookup import Hit
from hybridc.compiler.log.record import Record, Verdict, in_model, who
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.measurement.profile import Watch
from hybridc.compiler.model import Feed, random_feed
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.text.units import format_durations
from hybridc.compiler.tuning import recording
from hybridc.compiler.tuning.claimed import claimed
from hybridc.compiler.tuning.tasks import Choice, Task
from hybridc.compiler.tuning.whole_model import versions
from hybridc.compiler.tuning.whole_model.rounds import CALLS, Origin, middle, ratio
from hybridc.compiler.tuning.whole_model.versions import Ruled, Version

_CONTENDERS = 3  # points of a kernel besides its default
_NEAR = 1.03  # of the default's time alone: what is slower will hardly be faster in the model
_SECONDS = 30.0  # for the calls of one model in all versions
_ROUNDS = 4, 60  # at least and at most
_PATIENCE = 0.5  # seconds between two looks at what another tuning is at
# Seconds between two rounds: what disturbs the machine lasts for a second or two, and over less the
# load of a round cannot be told.
_REST = load.INTERVAL
_PAIR = 2  # versions, to compare anything
_SHARE = 0.5  # of the free memory that the versions may fill
_BUSY = (
    "{}: kernels keep their defaults, as other programs kept {:.1f} cores busy while the model ran;"
    " the same command decides on a quieter machine"
)

_Runs = Sequence[Mapping[str, Sequence[float]]]  # what each call of a model took, kernel by kernel


@dataclass(frozen=True)
class Placed:
    """Seconds that a model's kernels take in one run: at their defaults, and at the winners.

    What chose a winner does not tell its gain: the least of several noisy times is partly luck.
    """

    model: str
    default: float
    best: float
    changed: int

    def __str__(self) -> str:
        """`resnet-18: in the model kernels take 10.2 ms at their defaults, 9.9 ms with 8 tuned`."""
        before, after = format_durations([self.default, self.best])
        took = f"in the model kernels take {before} at their defaults"
        return f"{self.model}: {took}, {after} with {self.changed} tuned"


@dataclass(frozen=True)
class InModel:
    """Times points in a model, whose tasks are given with their calls.

    After the `deadline` (`time.monotonic`) no version is built but the second, and calls are few.
    `notes` tell where the machine had too much else to do.
    """

    log: TuningLog
    seed: int
    progress: Callable[[str], None]
    deadline: float
    model: Unscheduled
    tasks: Mapping[Task, int]
    notes: list[str] = field(default_factory=list[str])

    def compare(self) -> list[Placed]:
        """Time what the log does not know yet, and tell what came of it.

        Where another tuning is at the same kernels in a model, what it finds is waited for.
        Nothing where that cannot be done: no default was measured, one fails and no point is known
        that does not, the time is used up, or the kernels run on a GPU, whose launches do not tell
        what they take.
        """
        if self.model.context.target.gpu is not None:
            return []
        owner = f"{who()}/{os.getpid()}/{time.time_ns()}"
        while True:
            with claimed(self.log, self._work(), owner) as ours:
                if ours:
                    return self._compared()
            if time.monotonic() > self.deadline:
                return []
            self.progress("in the model: another tuning is at it")
            time.sleep(_PATIENCE)

    def _work(self) -> str:
        """What is claimed meanwhile."""
        series = [described.key for task in self.tasks for described in recording.described(task)]
        return claims.name(in_model(self.model.state), *sorted(set(series)))

    def _compared(self) -> list[Placed]:
        lacking = {task: points for task in self.tasks if (points := self._lacking(task))}
        base = versions.stand_ins(self.tasks)
        if base is None:
            return []
        called = self._called(versions.of(lacking, base)) if lacking else []
        if lacking and not called:
            return []
        when = time.time()
        for task in lacking:
            records = list(self._records(task, called, when))
            self.log.add(records, recording.described(task)).check(self.log.name)
        return self._placed()

    def _timed(self, task: Task) -> dict[Choice, dict[Origin, list[float]]]:
        """What the log knows of points in models: seconds of one call, by the tuning."""
        wanted = in_model(self.model.state), Verdict.OK
        found: dict[Choice, dict[Origin, list[float]]] = {}
        for each in recording.known(task, self.log):
            choice = task.choice(each.rule, each.point)
            if (each.mode, each.verdict) == wanted and choice is not None:
                taken = found.setdefault(choice, {})
                taken.setdefault((each.who, each.when), []).extend(each.seconds)
        return found

    def _lacking(self, task: Task) -> list[Ruled]:
        """The default and the points that were fastest alone, less those timed in a model."""
        if task.default is None or task.default.seconds is None:
            return []
        limit = _NEAR * task.default.seconds
        tried = [
            (trial.cost, (each.kernel.rule_name, trial.point))
            for each in (task, *task.rivals)
            for trial in each.history
            if trial.cost <= limit
        ]
        fastest = [ruled for _, ruled in sorted(tried, key=itemgetter(0))[: _CONTENDERS + 1]]
        timed, default = self._timed(task), (task.kernel.rule_name, task.default.point)
        points = {task.choice(*ruled): ruled for ruled in (default, *fastest)}
        return [ruled for choice, ruled in points.items() if choice not in timed]

    def _called(self, versions: Sequence[Version]) -> Sequence[Version]:
        """Build the versions as far as time and memory go, and call them in turn."""
        watches: list[Watch] = []
        for version in versions:
            # The default and what was fastest alone are compared in any case, once begun.
            if time.monotonic() > self.deadline and len(watches) != 1:
                break
            self.progress(f"in the model: building {len(watches) + 1}/{len(versions)}")
            artifact = self.model.built(version)
            if not watches and (fit := _fitting(artifact)) < len(versions):
                if fit < _PAIR:
                    return ()
                versions = versions[:fit]
            watches.append(Watch(InferenceSession(artifact, self.model.context.target.threads)))
            if len(watches) == len(versions):
                break
        versions = versions[: len(watches)]
        if not watches:
            return ()
        self.progress(f"in the model: calling {len(versions)} versions")
        feed = random_feed(self.model.model.inputs, self.seed)
        end = min(time.monotonic() + _SECONDS, self.deadline)
        if busy := _call(watches, versions, feed, end, self._bearable):
            self.notes.append(_BUSY.format(self.model.model.name, busy))
        return versions

    @property
    def _bearable(self) -> float:
        """Cores that others may keep busy while the model runs."""
        return max(load.QUIET, host.cores() - self.model.context.target.threads)

    def _records(self, task: Task, versions: Sequence[Version], when: float) -> Iterator[Record]:
        """What a task took in each version."""
        workload, target, toolchain = recording.described(task)
        assert task.default is not None
        default = task.kernel.rule_name, task.default.point
        for version in versions:
            if seconds := version.seconds.get(workload.key):
                rule, point = version.points.get(workload.key, default)
                yield Record(
                    workload=workload.key,
                    target=target.key,
                    toolchain=toolchain.key,
                    rule=rule,
                    point=dict(point),
                    verdict=Verdict.OK,
                    seconds=tuple(seconds),
                    mode=in_model(self.model.state),
                    when=when,
                    who=who(),
                    seed=self.seed,
                )

    def _placed(self) -> list[Placed]:
        """What the kernels take at their defaults and at the winners, by the log."""
        default = best = 0.0
        changed = 0
        for task, calls in self.tasks.items():
            workload, target, toolchain = recording.described(task)
            won = self.log.lookup(
                workload.key, target, toolchain, mode=self.model.state, usable=task.acceptable
            )
            timed = self._timed(task)
            if isinstance(won, Hit) and task.first in timed:
                other = task.choice(won.record.rule, won.record.point) != task.first
                took = calls * middle(timed[task.first])
                default += took
                best += took * (ratio(timed, task.first) if other else 1.0)
                changed += other
        return [Placed(self.model.model.name, default, best, changed)] if default else []


def _fitting(artifact: Artifact) -> int:
    """How many versions of a model fit into the memory that is free."""
    import psutil

    held = sum(weight.nbytes for weight in artifact.weights.values())
    return int(_SHARE * psutil.virtual_memory().available / max(held, 1))


def _call(
    watches: Sequence[Watch], versions: Sequence[Version], feed: Feed, end: float, bearable: float
) -> float | None:
    """Call the versions in turn until the `end`, and take what their kernels took.

    Rounds beside which other programs kept more than the `bearable` cores busy do not count:
    threads wait for each other as long as somebody else has a core, and kernels on one thread would
    win that lose on a quiet machine.  Where too few are left, only the first version takes times,
    and what others kept busy is returned.  All calls of the other rounds count, slow ones too:
    other guests of the host have their share of the last cache, and a point that reads weights
    again and again is the fastest only while they leave it.
    """
    least, most = _ROUNDS
    busy: list[float] = []
    rounds: list[list[_Runs]] = []
    while len(rounds) < most and (len(rounds) < least or time.monotonic() < end):
        watched = load.Load()
        rounds.append([_round(watch, feed) for watch in watches])
        time.sleep(_REST)
        busy.append(watched.others())
    quiet = [taken for taken, others in zip(rounds, busy, strict=True) if others <= bearable]
    enough = len(quiet) >= least
    for taken in quiet if enough else rounds:
        for version, runs in zip(versions if enough else versions[:1], taken, strict=False):
            for run in runs:
                version.take(run)
    return None if enough else fmean(busy)


def _round(watch: Watch, feed: Feed) -> _Runs:
    """Some calls of a version, without a first one."""
    watch.run(feed)
    return [watch.run(feed) for _ in range(CALLS)]
