"""Records as rows of the log, and back; a row that was tampered with does not come back."""

import json
import statistics
from collections.abc import Iterable
from typing import Any

from blake3 import blake3
from sqlalchemy import Connection, Select, select

from hybridc.compiler.errors import InputError
from hybridc.compiler.log import record as recording
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.record import Record, canonical, digest
from hybridc.compiler.log.schema import descriptions, records, series
from hybridc.compiler.log.workload import skeleton

_SLICE = 500  # keys of one statement; databases limit its parameters
# What parsing raises for text that is no JSON, or is nested too deeply.
_NONSENSE = (TypeError, ValueError, RecursionError)
_CHOICE_DIGITS = 15  # of the digest, so that the number fits 64 bits with a sign

_PLAIN = ("rule", "verdict", "mode", "predicted", "who", "seed", "trace")

_workload, _target, _toolchain = (
    descriptions.alias(name) for name in ("workload", "target", "toolchain")
)
_KEYED = (
    records.join(series, records.c.series == series.c.id)
    .join(_workload, series.c.workload == _workload.c.id)
    .join(_target, series.c.target == _target.c.id)
    .join(_toolchain, series.c.toolchain == _toolchain.c.id)
)


def select_records() -> Select[Any]:
    """Select records with their keys, as `to_record` reads them; add conditions to it."""
    return select(
        records,
        series.c.mode,
        _workload.c.key.label("workload"),
        _target.c.key.label("target"),
        _toolchain.c.key.label("toolchain"),
    ).select_from(_KEYED)


def of_keys(query: Select[Any], **keys: str | None) -> Select[Any]:
    """Narrow `select_records` to records of these keys; None stands for any."""
    tables = {"workload": _workload, "target": _target, "toolchain": _toolchain}
    for name, key in keys.items():
        if key is not None:
            query = query.where(tables[name].c.key == bytes.fromhex(key))
    return query


def choice(rule: str, point: str, trace: str) -> int:
    """A number for a rule with a point in canonical text, or with a trace where it has no knobs."""
    return int(blake3("\0".join((rule, point, trace)).encode()).hexdigest()[:_CHOICE_DIGITS], 16)


def from_record(record: Record, series_id: int) -> dict[str, Any]:
    """The row of a record that is fit to be kept."""
    point = canonical(dict(record.point))
    return {
        "key": bytes.fromhex(record.key),
        "series": series_id,
        "choice": choice(record.rule, point, record.trace),
        "rule": record.rule,
        "point": point,
        "verdict": str(record.verdict),
        "median": statistics.median(record.seconds) if record.seconds else None,
        "seconds": canonical(record.seconds),
        "predicted": record.predicted,
        "moment": record.when,
        "who": record.who,
        "seed": record.seed,
        "trace": record.trace,
    }


def to_record(row: Any) -> Record:
    """Read a row of `select_records`.

    Raises InputError if the row holds no record, or another one than was written.
    """
    try:
        data = {
            **{name: getattr(row, name).hex() for name in ("workload", "target", "toolchain")},
            **{name: getattr(row, name) for name in _PLAIN},
            "point": json.loads(row.point),
            "seconds": json.loads(row.seconds),
            "when": row.moment,
        }
        found = recording.from_json(data)
    except (*_NONSENSE, AttributeError, InputError) as error:
        raise InputError(f"row {row.id} of the log is not a record: {error}") from None
    median = statistics.median(found.seconds) if found.seconds else None
    if found.key != row.key.hex() or row.median != median:
        raise InputError(f"row {row.id} of the log was altered: it does not match its key")
    return found


def ids(connection: Connection, keys: Iterable[str]) -> dict[str, int]:
    """The row of each description that is there, by key."""
    table, found = descriptions.c, dict[str, int]()
    wanted = [bytes.fromhex(key) for key in keys]
    for start in range(0, len(wanted), _SLICE):
        query = select(table.key, table.id).where(table.key.in_(wanted[start : start + _SLICE]))
        found |= {key.hex(): number for key, number in connection.execute(query)}
    return found


def from_described(described: Described) -> dict[str, Any]:
    """The row of a description."""
    kind = skeleton(described.data) if described.kind == "workload" else None
    return {
        "key": bytes.fromhex(described.key),
        "kind": described.kind,
        "skeleton": None if kind is None else bytes.fromhex(digest(kind)),
        "data": canonical(described.data),
    }


def description(row: Any) -> Described | None:
    """Read a row of `descriptions`; None if it does not fit its key."""
    try:
        found = Described.of(row.kind, json.loads(row.data))
    except _NONSENSE:
        return None
    return found if found.key == row.key.hex() else None
