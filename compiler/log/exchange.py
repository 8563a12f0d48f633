"""Logs in and out of files, and from log to log: always a union of sets.

A form is chosen by the file's name: `.jsonl`, `.parquet`, or a directory for TVM's database.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem.files import reason, unreadable
from hybridc.compiler.log import jsonl, parquet, tvm_database
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.record import Record
from hybridc.compiler.log.store import Added, Faults, TuningLog

_BATCH = 2000  # records that are added at a time

Items = Iterator[Described | Record]


@dataclass(frozen=True)
class Form:
    """How one kind of file is read and written.

    `read` gives descriptions ahead of the records that need them, and counts what it skips.
    `write` says how many records it wrote.
    """

    name: str
    suffix: str
    read: Callable[[Path, Faults], Items]
    write: Callable[[Path, TuningLog, Faults], int]


FORMS = (
    Form("JSON Lines", ".jsonl", jsonl.read, jsonl.write),
    Form("Parquet", ".parquet", parquet.read, parquet.write),
    Form("a directory with TVM's database", "", tvm_database.read, tvm_database.write),
)


def form_of(path: Path) -> Form:
    """The form that a path asks for.  Raises InputError if it asks for none."""
    if path.is_dir():
        return FORMS[-1]
    for form in FORMS:
        if form.suffix == path.suffix:
            return form
    known = ", ".join(f"{form.name} ({form.suffix})" for form in FORMS[:-1])
    raise InputError(f"{path}: a log is exchanged as {known}, or {FORMS[-1].name}")


def load(log: TuningLog, path: Path) -> Added:
    """Add what a file holds; what is damaged in it is skipped and counted."""
    faults = Faults()
    try:
        return _take(log, form_of(path).read(path, faults)) + Added(0, 0, faults)
    except OSError as error:
        raise InputError(unreadable(path, error)) from error


def save(log: TuningLog, path: Path) -> tuple[int, Faults]:
    """Write a log to a file, which appears when it is whole; how many records it holds."""
    faults = Faults()
    try:
        return form_of(path).write(path, log, faults), faults
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason(error)}") from error


def merge(into: TuningLog, other: TuningLog) -> Added:
    """Add what another log holds."""
    faults = Faults()

    def items() -> Items:
        yield from other.described(faults)
        yield from other.records(faults=faults)

    return _take(into, items()) + Added(0, 0, faults)


def _take(log: TuningLog, items: Iterable[Described | Record]) -> Added:
    total = Added(0, 0, Faults())
    described: list[Described] = []
    records: list[Record] = []
    for item in items:
        if isinstance(item, Described):
            described.append(item)
            continue
        records.append(item)
        if len(records) == _BATCH:
            total += log.add(records, described)
            records, described = [], []
    return total + log.add(records, described)
