"""What a tuning found, as a table for people and as JSON data."""

from collections.abc import Mapping, Sequence
from typing import Any

from hybridc.compiler.log import keys
from hybridc.compiler.log.lookup import Hit
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.text.tables import table
from hybridc.compiler.text.units import counted, format_durations, format_point
from hybridc.compiler.tuning.prediction import explained
from hybridc.compiler.tuning.result import Tuned
from hybridc.compiler.tuning.tasks import Task
from hybridc.compiler.tuning.trials import history


def kernels(tuned: Tuned, log: TuningLog) -> list[dict[str, Any]]:
    """Each kernel: its winner in the log, beside its default; times in seconds of one call.

    Both times were taken in a model where the winner's was.
    """
    ordered = sorted(tuned.tasks, key=lambda task: -task.seconds)
    return [_kernel(task, log) for task in ordered]


def _kernel(task: Task, log: TuningLog) -> dict[str, Any]:
    target, toolchain = keys.of_target(task.kernel.target), keys.of_toolchain()
    found = log.lookup(
        task.workload.key, target, toolchain, mode=task.kernel.mode, usable=task.acceptable
    )
    won = found if isinstance(found, Hit) else None
    return {
        "kernel": task.kernel.name,
        "rule": won.record.rule if won else task.kernel.rule_name,
        "calls": task.calls,
        "trials": task.trials,
        "failed": sum(trial.seconds is None for trial in task.history if trial is not task.default),
        "default": _default(task, won, log),
        "best": won.seconds if won else None,
        "point": dict(won.record.point) if won else None,
        **explained.of(task),
    }


def _default(task: Task, won: Hit | None, log: TuningLog) -> float | None:
    """The time of a task's default, taken as that of its winner was."""
    alone = task.default.seconds if task.default else None
    if won is None or won.record.mode == task.kernel.mode:
        return alone
    record = won.record
    found = log.records(record.workload, record.target, record.toolchain)
    placed = history(found, task.kernel.rule_name, record.mode)
    return next((trial.seconds for trial in placed if task.is_default(trial.point)), alone)


def gain(rows: Sequence[Mapping[str, Any]]) -> float:
    """How many times as long all calls take at the defaults as with the winners."""
    known = [row for row in rows if row["default"] and row["best"]]
    before = sum(row["calls"] * row["default"] for row in known)
    after = sum(row["calls"] * row["best"] for row in known)
    return before / after if after else 1.0


def to_json(tuned: Tuned, rows: Sequence[Mapping[str, Any]], log: str) -> dict[str, Any]:
    """The tuning as JSON data."""
    return {
        "log": log,
        "measured": tuned.measured,
        "failed": dict(tuned.failed),
        "disturbed": tuned.disturbed,
        "ended": tuned.reason,
        "interrupted": tuned.interrupted,
        "drift": tuned.drift,
        "seconds": tuned.seconds,
        "gain": gain(rows),
        "skipped": list(tuned.skipped),
        "kernels": [dict(row) for row in rows],
    }


def text(tuned: Tuned, rows: Sequence[Mapping[str, Any]], log: str, explain: bool = False) -> str:
    """The tuning as tables and some sentences; `explain` adds how well it was predicted."""
    headers = ("kernel", "rule", "calls", "trials", "default", "best", "gain", "point")
    defaults = format_durations([row["default"] for row in rows])
    bests = format_durations([row["best"] for row in rows])
    lines = list(map(_row, rows, defaults, bests))
    told = [table(headers, lines), *([explained.text(rows)] if explain else [])] if rows else []
    told += [_counted(tuned), *tuned.skipped]
    if rows:
        told.append(f"together, the kernels are {gain(rows):.3f} times as fast as without tuning")
    told.append(f"kept in {log}; ended: {tuned.reason}")
    return "\n".join(told)


def _counted(tuned: Tuned) -> str:
    failed = ", ".join(f"{count} {verdict}" for verdict, count in sorted(tuned.failed.items()))
    parts = [f"{counted(tuned.measured, 'point')} measured in {tuned.seconds:.0f} s"]
    parts += [f"of which failed: {failed}"] if failed else []
    parts += [f"the machine's pace changed by up to {tuned.drift:+.1%}"] if tuned.drift else []
    if tuned.disturbed:
        parts.append(disturbed(tuned.disturbed))
    return "; ".join(parts)


def disturbed(count: int) -> str:
    """How many times say little of the kernels."""
    times = "1 time was" if count == 1 else f"{count} times were"
    return f"{times} taken while other programs kept the machine busy"


def _row(row: Mapping[str, Any], written_default: str, written_best: str) -> tuple[str, ...]:
    default, best = row["default"], row["best"]
    return (
        row["kernel"],
        row["rule"],
        str(row["calls"]),
        str(row["trials"]),
        written_default,
        written_best,
        f"{default / best:.2f}" if default and best else "-",
        format_point(row["point"] or {}) or "-",
    )
