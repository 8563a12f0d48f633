"""What stages gained in earlier compilations on this machine, kept in the cache directory.

One line of JSON for each stage that was timed.  Lines that are torn or foreign are passed over.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridc.compiler import settings

VERSION = 2
_READ = 2**20  # bytes from the end: some thousand stages
_FEATURES = 4


@dataclass(frozen=True)
class Past:
    """What a stage gained once: `expected` by analysis, and `gained` when it was measured."""

    stage: str
    machine: str
    features: tuple[float, ...]
    expected: float
    gained: float
    seconds: float


def path() -> Path:
    """The file of all of them."""
    return settings.cache_directory() / "experience.jsonl"


def read() -> tuple[Past, ...]:
    """What is remembered, the oldest first; nothing where there is no file."""
    try:
        with path().open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _READ))
            lines = stream.read().splitlines()
    except OSError:
        return ()
    found = (_row(line) for line in lines)
    return tuple(row for row in found if row is not None)


def add(rows: Sequence[Past]) -> str:
    """Append rows, all in one write; why that was not possible, or nothing."""
    if not rows:
        return ""
    text = "".join(json.dumps({"version": VERSION, **vars(row)}) + "\n" for row in rows)
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        with path().open("ab") as stream:
            stream.write(text.encode())
    except OSError as error:
        return f"what stages gained could not be remembered: {error.strerror}"
    return ""


def _row(line: bytes) -> Past | None:
    """A line's content; None if it is torn, or of another version."""
    try:
        told: Any = json.loads(line)
        if told["version"] != VERSION:
            return None
        row = Past(
            stage=str(told["stage"]),
            machine=str(told["machine"]),
            features=tuple(map(float, told["features"])),
            expected=float(told["expected"]),
            gained=float(told["gained"]),
            seconds=float(told["seconds"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return row if len(row.features) == _FEATURES and _finite(row) else None


def _finite(row: Past) -> bool:
    return all(map(math.isfinite, (row.expected, row.gained, row.seconds, *row.features)))
