"""Lines for people about default points that a tuning found to be wrong."""

from hybridc.compiler.kernel_record import faulty
from hybridc.compiler.log.record import broken
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.text.units import format_point
from hybridc.compiler.tuning import recording
from hybridc.compiler.tuning.result import Tuned
from hybridc.compiler.tuning.tasks import Task


def told(tuned: Tuned, log: TuningLog) -> list[str]:
    """A line for each default that computes something wrong or crashes, and what becomes of it."""
    return [line for task in tuned.tasks if (line := _line(task, log, tuned.faults.get(task, "")))]


def _line(task: Task, log: TuningLog, detail: str) -> str:
    """The line; empty if the default is sound, or nobody measured it."""
    rule, found = task.kernel.rule_name, recording.known(task, log)
    verdicts = {each.verdict for each in found if each.rule == rule and task.is_default(each.point)}
    if (fault := broken(verdicts)) is None:
        return ""
    named = faulty(task.kernel.name, rule, task.search.default, fault)
    other = format_point(task.best.point) if task.best else ""
    instead = f"takes {other} instead" if other else "leaves the kernel to another rule"
    differs = f" ({detail})" if detail else ""
    return f"{named}{differs}; `hybridc compile` {instead}; please report it with the model"
