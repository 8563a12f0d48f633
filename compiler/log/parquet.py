"""A log as a Parquet file: a table with one row a record, its descriptions in columns of text."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from hybridc.compiler.errors import InputError, first_line
from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.log import record as recording
from hybridc.compiler.log.keys import KINDS, Described
from hybridc.compiler.log.record import FIELDS, Record, canonical
from hybridc.compiler.log.store import Faults, TuningLog
from hybridc.compiler.log.tvm_database import module_of

_ROWS = 10_000  # of one group


def write(path: Path, log: TuningLog, faults: Faults) -> int:
    """Write every record of a log; equal descriptions are stored once in a group of rows."""
    arrow, tables = _libraries()
    known = {described.key: canonical(described.data) for described in log.described(faults)}
    rows = (_row(record, known) for record in log.records(faults=faults))
    schema = _schema(arrow)
    count = 0
    with replacing(path) as stream, tables.ParquetWriter(stream, schema) as writer:
        while group := list(islice(rows, _ROWS)):
            writer.write_table(arrow.Table.from_pylist(group, schema))
            count += len(group)
    return count


def read(path: Path, faults: Faults) -> Iterator[Described | Record]:
    """Read what `write` wrote.  Raises InputError if the file is no such table."""
    arrow, tables = _libraries()
    try:
        with tables.ParquetFile(path) as file:
            if not {*FIELDS} <= {*file.schema_arrow.names}:
                raise InputError(f"{path} contains a table, but not of records")
            seen: set[str] = set()
            for batch in file.iter_batches(_ROWS):
                for row in batch.to_pylist():
                    yield from _items(row, seen, faults)
    except arrow.ArrowException as error:
        raise InputError(
            f"{path} is not a Parquet file, or is damaged: {first_line(error)}"
        ) from error


def _libraries() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'hybridc[parquet]'") from None
    return pyarrow, pyarrow.parquet


def _schema(arrow: Any) -> Any:
    text = arrow.string()
    kinds = {
        "seconds": arrow.list_(arrow.float64()),
        "predicted": arrow.float64(),
        "when": arrow.float64(),
        "seed": arrow.int64(),
    }
    columns = [(name, kinds.get(name, text)) for name in FIELDS]
    return arrow.schema([*columns, *((f"{kind}_data", text) for kind in KINDS)])


def _row(record: Record, known: dict[str, str]) -> dict[str, Any]:
    data = {**record.to_json(), "point": canonical(dict(record.point))}
    keys = {"module": module_of(record), **{kind: data[kind] for kind in KINDS if kind in data}}
    return data | {f"{kind}_data": known.get(key) for kind, key in keys.items()}


def _items(row: dict[str, Any], seen: set[str], faults: Faults) -> Iterator[Described | Record]:
    try:
        for kind in KINDS:
            text = row.get(f"{kind}_data")
            if text is not None and text not in seen:
                seen.add(text)
                yield Described.of(kind, json.loads(text))
        data = {name: row[name] for name in FIELDS}
        yield recording.from_json({**data, "point": json.loads(row["point"])})
    except (TypeError, ValueError, RecursionError, InputError) as error:
        faults.add(str(error))
