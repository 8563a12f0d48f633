"""Write the measurements of a task into the log as records, and find those that the log has."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from hybridc.compiler.log import keys
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.record import Record, who
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning.candidates.outcome import CandidateResult
from hybridc.compiler.tuning.interrupts import uninterrupted
from hybridc.compiler.tuning.tasks import Task


def described(task: Task) -> tuple[Described, Described, Described]:
    """What records of a task are about: its workload, its target and our tools."""
    return task.workload, keys.of_target(task.kernel.target), keys.of_toolchain()


def known(task: Task, log: TuningLog) -> Iterator[Record]:
    """What a log has of a task under the conditions of now, by whatever rule and in any mode."""
    workload, target, toolchain = described(task)
    return log.records(workload.key, target.key, toolchain.key)


def record(task: Task, measured: CandidateResult, seed: int) -> Record:
    """The record of what was measured just now."""
    workload, target, toolchain = described(task)
    return Record(
        workload=workload.key,
        target=target.key,
        toolchain=toolchain.key,
        rule=task.kernel.rule_name,
        point=dict(measured.point),
        verdict=measured.verdict,
        seconds=measured.seconds,
        mode=task.kernel.mode,
        predicted=task.predictor.estimate(measured.point),
        when=time.time(),
        who=who(),
        seed=seed,
    )


@dataclass
class Recorder:
    """Writes into a log what is measured; whoever is interrupted saves once more and loses nothing.

    An interruption may come just before saving is shielded from it, so what is measured stays here
    until it is written.
    """

    log: TuningLog
    seed: int
    _unsaved: list[tuple[Task, CandidateResult]] = field(
        default_factory=list[tuple[Task, CandidateResult]]
    )

    def keep(self, task: Task, measured: CandidateResult) -> None:
        """Have it written at the next `save`."""
        self._unsaved.append((task, measured))

    def save(self) -> None:
        """Write what is not written yet.

        Raises LogError if the log accepts none of it: it would be measured again and again.
        """
        with uninterrupted():
            found, self._unsaved = self._unsaved, []
            for task in dict.fromkeys(task for task, _ in found):
                records = [record(each, m, self.seed) for each, m in found if each is task]
                self.log.add(records, described(task)).check(self.log.name)
