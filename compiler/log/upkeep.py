"""Keep a log small: what is old and won nothing goes, what may still win stays."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, not_, or_, select

from hybridc.compiler.log import claims, schema
from hybridc.compiler.log.access import GENERIC
from hybridc.compiler.log.connect import guarded
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.log.winner import WIDEST, believed

_ROUNDS = 8  # of deleting and weighing again, until a log has its size


@dataclass(frozen=True)
class Collected:
    """What was removed, and the bytes before and after."""

    records: int
    descriptions: int
    claims: int
    before: int
    after: int


def collect(log: TuningLog, oldest: float | None = None, largest: int | None = None) -> Collected:
    """Remove records older than `oldest` seconds, then the oldest ones above `largest` bytes.

    Records of choices that may be a winner stay, and so does what was found to be wrong; so a log
    can remain larger than it should be.  The others go by choices, each as old as its last record:
    of one alone, nobody could tell whether it was lucky.  Removes what nothing refers to any more
    as well.
    """
    before = size(log)
    gone = 0
    if oldest is not None:
        with log.writing() as connection:
            _keep_writers_out(connection)
            old = (one for one in _expendable(connection) if one.last < time.time() - oldest)
            gone += _remove(connection, old)
    # PostgreSQL weighs as much until it vacuums: weighing again would remove more than is too much.
    rounds = _ROUNDS if log.engine.dialect.name == "sqlite" else 1
    for _ in range(rounds if largest is not None else 0):
        removed = _shrink(log, largest or 0)
        gone += removed
        if not removed:
            break
    with log.writing() as connection:
        _keep_writers_out(connection)
        expired = claims.expire(connection)
        unused = _unused(connection)
    _give_back(log)
    return Collected(gone, unused, expired, before, size(log))


def size(log: TuningLog) -> int:
    """Bytes that a log's content takes."""
    with log.reading() as connection:
        if connection.dialect.name == "postgresql":
            tables = (func.pg_total_relation_size(name) for name in schema.metadata.tables)
            return sum(int(connection.execute(select(each)).scalar_one()) for each in tables)
        pages, free, page = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * page


@dataclass(frozen=True)
class _Choice:
    """Records of one choice that may go together, and when the last of them was measured."""

    ids: Sequence[int]
    last: float


def _keep_writers_out(connection: Connection) -> None:
    """What is found stays so until it is removed; of SQLite there is one writer in any case."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE records IN SHARE ROW EXCLUSIVE MODE")


def _expendable(connection: Connection) -> Iterator[_Choice]:
    """The choices that are no candidates for winning, without what is evidence against them."""
    table = schema.records.c
    columns = (table.id, table.series, table.choice, table.verdict, table.median, table.moment)
    rows = connection.execute(select(*columns).order_by(table.series, table.choice))
    for _, series in groupby(rows, lambda row: row.series):
        choices = [list(group) for _, group in groupby(series, lambda row: row.choice)]
        times = [_bounds(choice) for choice in choices]
        reach = min(slowest for _, slowest in times) * (1 + 2 * WIDEST)
        for choice, (fastest, _) in zip(choices, times, strict=True):
            going = [row for row in choice if row.verdict != "wrong"]
            if going and (fastest > reach or fastest == inf):
                yield _Choice([row.id for row in going], max(row.moment for row in going))


def _bounds(choice: Sequence[Any]) -> tuple[float, float]:
    """Between which seconds lies the time by which a choice may win; infinite if it cannot."""
    medians = [row.median for row in choice if row.verdict == "ok" and row.median is not None]
    if not medians or any(row.verdict == "wrong" for row in choice):
        return inf, inf
    told = believed(medians, float)
    return told[0], told[-1]


def _remove(connection: Connection, choices: Iterable[_Choice]) -> int:
    """Remove these records, and say how many they were."""
    ids = [number for choice in choices for number in choice.ids]
    if ids:
        one = delete(schema.records).where(schema.records.c.id == bindparam("number"))
        connection.execute(one, [{"number": number} for number in ids])
    return len(ids)


def _shrink(log: TuningLog, largest: int) -> int:
    """Remove as many of the oldest expendable records as make up for what is too much."""
    excess, count = size(log) - largest, len(log)
    if excess <= 0 or not count:
        return 0
    number = max(1, excess * count // size(log))
    with log.writing() as connection:
        _keep_writers_out(connection)
        ordered = sorted(_expendable(connection), key=lambda one: (one.last, one.ids))
        return _remove(connection, _first(ordered, number))


def _first(choices: Iterable[_Choice], number: int) -> Iterator[_Choice]:
    """The first choices, until they have so many records."""
    for choice in choices:
        if number <= 0:
            return
        yield choice
        number -= len(choice.ids)


def _unused(connection: Connection) -> int:
    """Remove series without records, then descriptions that nothing refers to."""
    table = schema.series.c
    used = select(schema.records.c.series)
    connection.execute(delete(schema.series).where(table.id.not_in(used)))
    described = schema.descriptions.c
    unused: list[Any] = [
        described.id.not_in(select(column))
        for column in (table.workload, table.target, table.toolchain)
    ]
    traced = select(schema.records.c.id).where(schema.records.c.rule == GENERIC).exists()
    unused.append(or_(described.kind != "module", not_(traced)))
    return connection.execute(delete(schema.descriptions).where(*unused)).rowcount


def _give_back(log: TuningLog) -> None:
    """Give the space of what was removed back to the file system; PostgreSQL does so itself."""
    if log.engine.dialect.name == "sqlite":
        with guarded(log.name):
            connection = log.engine.raw_connection()
            # A script, since one step frees one page and only scripts are stepped to their end.
            connection.cursor().executescript("PRAGMA incremental_vacuum")
            connection.close()
