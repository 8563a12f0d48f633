"""What a database of TVM knows of a kernel, as points to begin with.

Nobody compared the answers of TVM's records, so they cannot win; as hints they are measured and
compared like any other point.  Their traces are matched with our own sketches, never carried out.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from statistics import median

from hybridc.compiler.interfaces import Point, SearchTask
from hybridc.compiler.log.access import GENERIC
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.sketches import SKETCH, sketches
from hybridc.compiler.tuning.tasks import Task

_MOST = 8  # hints; one round measures them


def hinted(task: Task, log: TuningLog) -> SearchTask:
    """The search of a task, with the fastest points that TVM found among its hints."""
    if SKETCH not in task.search.space:
        return task.search
    records = [
        record
        for record in log.records(workload=task.workload.key)
        if record.rule == GENERIC and record.verdict is Verdict.UNCHECKED and record.seconds
    ]
    points = list(_points(task, sorted(records, key=lambda record: median(record.seconds))))
    return replace(task.search, hints=(*task.search.hints, *points[:_MOST]))


def _points(task: Task, records: list[Record]) -> Iterator[Point]:
    found = sketches(task.kernel.func, task.kernel.target)
    seen: set[tuple[int, ...]] = set()
    for record in records:
        point = found.point(_trace(record))
        if point is not None and (key := task.search.key(point)) not in seen:
            seen.add(key)
            yield point


def _trace(record: Record) -> str:
    """The trace within a record, as text; empty where there is none."""
    try:
        return json.dumps(json.loads(record.trace)["record"][0])
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
