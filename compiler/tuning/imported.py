"""Unchecked records of a kernel, such as those of TVM's tuning, as points to start with.

Such records cannot win: TVM's tuning, for one, compares no answers.  As hints their points are
measured and compared like any other.  TVM's traces are matched with our own sketches, never carried
out; of a kernel that has another rule, they are points of a rival.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from hybridc.compiler import plugin
from hybridc.compiler.interfaces import Point, ScheduleRule, SearchTask
from hybridc.compiler.log.access import GENERIC
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.text.units import counted
from hybridc.compiler.tuning import strategies
from hybridc.compiler.tuning.sketches import SKETCH, sketches
from hybridc.compiler.tuning.tasks import Task, name_of

_MOST = 8  # points; one round measures them
_SKETCHED = "fallback"  # the rule whose points are sketches of TVM's


def hinted(task: Task, log: TuningLog) -> SearchTask:
    """The search of a task, with the fastest points that nobody checked among its hints."""
    records = [each for each in _timed(task, log) if each.verdict is Verdict.UNCHECKED]
    return replace(task.search, hints=tuple(_points(task, records)))


def rivals(task: Task, log: TuningLog) -> list[Task]:
    """The task's kernel by TVM's sketches, at the fastest points of TVM's search that they make.

    None if its own rule has them, or where no record is such a point.
    """
    if SKETCH in task.search.space or task.kernel.target.gpu is not None:
        return []
    records = [each for each in _timed(task, log) if each.rule == _SKETCHED or _is_traced(each)]
    if not records:
        return []
    made: Any = plugin.Catalogue("hybridc.schedules", ScheduleRule).create(_SKETCHED)
    kernel = replace(task.kernel, rule=made)
    name = f"{task.search.name}/{_SKETCHED}"
    search = replace(strategies.search_task(made, kernel.match), name=name)
    rival = Task(kernel, task.calls, task.workload, search)
    if not (points := _points(rival, records)):
        return []
    rival.search = replace(search, default=points[0], hints=tuple(points[1:]))
    return [rival]


def useless(tasks: Iterable[Task], log: TuningLog) -> str:
    """Say of which kernels no record of TVM's search could be tried; empty if there are none."""
    count, names = 0, set[str]()
    for task in tasks:
        if task.rivals or task.search.hints:
            continue
        traced = [record for record in _timed(task, log) if _is_traced(record)]
        count += len(traced)
        names |= {name_of(task)} if traced else set()
    if not count:
        return ""
    what = f"{counted(count, 'unchecked record')} of TVM's search could not be tried"
    return f"{what}, as no sketch here makes them: {', '.join(sorted(names))}"


def _timed(task: Task, log: TuningLog) -> list[Record]:
    """The records of a task, of whatever target and tools, that ran."""
    return [each for each in log.records(workload=task.workload.key) if each.seconds]


def _is_traced(record: Record) -> bool:
    return record.rule == GENERIC and record.verdict is Verdict.UNCHECKED


def _points(task: Task, records: Sequence[Record]) -> list[Point]:
    """The fastest distinct points of the task's space that records stand for."""
    traced = SKETCH in task.search.space and any(record.rule == GENERIC for record in records)
    found = sketches(task.kernel.func, task.kernel.target) if traced else None
    points: dict[tuple[int, ...], Point] = {}
    for record in sorted(records, key=lambda record: median(record.seconds)):
        point: Point | None = None
        if record.rule == task.kernel.rule_name:
            point = record.point
        elif record.rule == GENERIC and found is not None:
            point = found.point(_trace(record))
        if point is not None and task.search.contains(point):
            points.setdefault(task.search.key(point), point)
    return [*points.values()][:_MOST]


def _trace(record: Record) -> str:
    """The trace within a record, as text; empty if there is none."""
    try:
        return json.dumps(json.loads(record.trace)["record"][0])
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
