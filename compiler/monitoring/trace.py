"""A timeline as a trace file that chrome://tracing and ui.perfetto.dev open.

The format is Google's "Trace Event Format" (JSON object form): complete events (`X`) for spans,
counters (`C`) for what a monitor sampled, and metadata (`M`) with the names of processes.  Times
are microseconds since the timeline began; nanoseconds are three decimals of them.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridc.compiler.filesystem.files import check_place, replacing
from hybridc.compiler.monitoring.monitored import Monitored
from hybridc.compiler.monitoring.timeline import Span, Timeline

# Counters of a trace, at most: a viewer draws no more of them than a screen has columns.
_POINTS = 5_000

Event = dict[str, Any]


def check(path: Path) -> None:
    """Raise InputError if no trace can be written to `path`, before anything takes time."""
    check_place("--trace", path, "trace.json")


def write(path: Path, timeline: Timeline, monitored: Monitored | None = None) -> None:
    """Write the trace whole or not at all.  Raises OSError if the system refuses."""
    with replacing(path) as stream:
        stream.write(json.dumps(events(timeline, monitored), allow_nan=False).encode())


def events(timeline: Timeline, monitored: Monitored | None = None) -> dict[str, Any]:
    """The trace as JSON data; parents come before what they hold."""
    ordered = sorted(timeline.spans, key=lambda span: (span.process, span.start, -span.end))
    return {
        "traceEvents": [
            *_names(timeline),
            *(_complete(span, timeline.start) for span in ordered),
            *(_counters(monitored, timeline) if monitored else ()),
        ],
        "displayTimeUnit": "ms",
        "otherData": {"program": "hybridc"},
    }


def _names(timeline: Timeline) -> Iterator[Event]:
    for index, (process, name) in enumerate(timeline.processes.items()):
        for what, arguments in (
            ("process_name", {"name": name}),
            ("thread_name", {"name": "main"}),
            ("process_sort_index", {"sort_index": index}),
        ):
            yield {"name": what, "ph": "M", "pid": process, "tid": process, "args": arguments}


def _complete(span: Span, start: int) -> Event:
    return {
        "name": span.name,
        "cat": span.kind,
        "ph": "X",
        "ts": (span.start - start) / 1e3,
        "dur": (span.end - span.start) / 1e3,
        "pid": span.process,
        "tid": span.process,
        "args": _plain(dict(span.facts)),
    }


def _counters(monitored: Monitored, timeline: Timeline) -> Iterator[Event]:
    """A counter for each series, beside the process that sampled them."""
    process, zero = next(iter(timeline.processes)), monitored.began - timeline.start
    for series in monitored.series:
        channel = series.channel
        for seconds, value in series.points(_POINTS):
            yield {
                "name": f"{channel.group}: {channel.name}",
                "ph": "C",
                "ts": zero / 1e3 + seconds * 1e6,
                "pid": process,
                "args": {channel.unit: value},
            }


def _plain(value: Any) -> Any:
    """JSON data: numbers that JSON lacks and foreign objects become text."""
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if not math.isfinite(value):
            return str(value)
        case bool() | int() | float() | str() | None:
            return value
        case _:
            return str(value)
