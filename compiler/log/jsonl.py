"""A log as JSON Lines: one description or one record a line; a damaged line is one line lost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.log import record as recording
from hybridc.compiler.log.keys import KINDS, Described
from hybridc.compiler.log.record import Record, canonical
from hybridc.compiler.log.store import Faults, TuningLog

_LONGEST = 16 * 2**20  # bytes of a line


def write(path: Path, log: TuningLog, faults: Faults) -> int:
    """Write every description and record of a log."""
    count = 0
    with replacing(path) as stream:
        for described in log.described(faults):
            line = {"describes": described.kind, "data": described.data}
            stream.write(f"{canonical(line)}\n".encode())
        for count, record in enumerate(log.records(faults=faults), 1):  # noqa: B007
            stream.write(f"{canonical(record.to_json())}\n".encode())
    return count


def read(path: Path, faults: Faults) -> Iterator[Described | Record]:
    """Read what `write` wrote, in any order of lines."""
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(_LONGEST):
            number += 1
            try:
                yield _item(json.loads(line))
            except (ValueError, InputError, RecursionError) as error:
                faults.add(f"line {number}: {error}")


def _item(data: Any) -> Described | Record:
    match data:
        case {"describes": kind, "data": described} if kind in KINDS:
            return Described.of(kind, described)
        case _:
            return recording.from_json(data)
