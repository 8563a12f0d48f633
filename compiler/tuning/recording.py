"""What is measured of a task, as records of the log, and those that the log has."""

import time
from collections.abc import Iterator

from hybridc.compiler.log import keys
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.record import Record, who
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning.outcome import Measured
from hybridc.compiler.tuning.tasks import Task


def described(task: Task) -> tuple[Described, Described, Described]:
    """What records of a task are about: its workload, its target and our tools."""
    return task.workload, keys.of_target(task.kernel.target), keys.of_toolchain()


def known(task: Task, log: TuningLog) -> Iterator[Record]:
    """What a log has of a task under the conditions of now, by whatever rule and in any mode."""
    workload, target, toolchain = described(task)
    return log.records(workload.key, target.key, toolchain.key)


def record(task: Task, measured: Measured, seed: int) -> Record:
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
