"""The result of a tuning."""

from collections.abc import Mapping
from dataclasses import dataclass

from hybridc.compiler.tuning.tasks import Task


@dataclass(frozen=True)
class Tuned:
    """The kernels with their trials, how many were measured, and why it ended.

    `measured` are the trials of this call, `failed` those that did not end well, by verdict;
    `disturbed` counts times that were taken while other programs kept the machine busy; `drift` is
    the change of the machine's pace that was largest, as a share.  `faults` say what was wrong with
    defaults that failed.
    """

    tasks: tuple[Task, ...]
    measured: int
    failed: Mapping[str, int]
    disturbed: int
    reason: str
    interrupted: bool
    drift: float
    skipped: tuple[str, ...]
    seconds: float
    faults: Mapping[Task, str]
