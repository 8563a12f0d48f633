"""Keep a log small: what is old and won nothing goes, what may still win stays."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, not_, or_, select

from hybridc.compiler.log import claims, schema
from hybridc.compiler.log.access import GENERIC
from hybridc.compiler.log.connect import guarded
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.log.winner import WIDEST

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
    can remain larger than it should be.  Removes what nothing refers to any more as well.
    """
    before = size(log)
    gone = 0
    if oldest is not None:
        with log.writing() as connection:
            old = schema.records.c.moment < time.time() - oldest
            gone += connection.execute(delete(schema.records).where(old, _expendable())).rowcount
    # PostgreSQL weighs as much until it vacuums: weighing again would remove more than is too much.
    rounds = _ROUNDS if log.engine.dialect.name == "sqlite" else 1
    for _ in range(rounds if largest is not None else 0):
        removed = _shrink(log, largest or 0)
        gone += removed
        if not removed:
            break
    with log.writing() as connection:
        if connection.dialect.name == "postgresql":  # writers find their descriptions, or wait
            connection.exec_driver_sql("LOCK TABLE records IN SHARE ROW EXCLUSIVE MODE")
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


def _expendable() -> ColumnElement[bool]:
    """Of records that are no candidates for winning, and no evidence against one."""
    table, rivals = schema.records.c, schema.records.alias("rivals")
    best = select(func.min(rivals.c.median)).where(
        rivals.c.series == table.series, rivals.c.verdict == "ok"
    )
    candidate = and_(
        table.verdict == "ok", table.median <= best.scalar_subquery() * (1 + 2 * WIDEST)
    )
    return not_(or_(candidate, table.verdict == "wrong"))


def _shrink(log: TuningLog, largest: int) -> int:
    """Remove as many of the oldest expendable records as make up for what is too much."""
    excess, count = size(log) - largest, len(log)
    if excess <= 0 or not count:
        return 0
    table = schema.records.c
    number = max(1, excess * count // size(log))
    oldest = select(table.id).where(_expendable()).order_by(table.moment, table.id).limit(number)
    with log.writing() as connection:
        return connection.execute(delete(schema.records).where(table.id.in_(oldest))).rowcount


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
