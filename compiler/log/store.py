"""The tuning log: records go in checked and in batches, and never go out but by `gc`."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from hybridc.compiler.errors import InputError, LogError
from hybridc.compiler.log import claims, connect, rows, schema
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.lookup import Hit, Miss, Near, Wanted, any_choice, lookup
from hybridc.compiler.log.record import Record, fault
from hybridc.compiler.log.search import Usable

_BATCH = 2000  # records of one transaction: what is lost at most where a writer dies
_PAGE = 1000  # rows that are read at a time
_COUNTED = MappingProxyType({"preserve_rowcount": True})  # of all rows, in PostgreSQL too
_SHOWN = 20  # faults that are told one by one

Series = tuple[str, str, str, str]  # the keys of workload, target and toolchain; the mode


@dataclass
class Faults:
    """Records that were skipped: how many, and the reasons of the first."""

    count: int = 0
    reasons: list[str] = field(default_factory=list[str])

    def add(self, reason: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.reasons) < _SHOWN:
            self.reasons.append(reason)


@dataclass(frozen=True)
class Added:
    """What became of records given to the log: new, there before, and skipped as unfit."""

    new: int
    known: int
    faults: Faults

    def check(self, log: str) -> None:
        """Raise LogError if a log of this name skipped a record."""
        if self.faults.count:
            raise LogError(f"tuning log {log} does not accept the record: {self.faults.reasons[0]}")

    def __add__(self, other: "Added") -> "Added":
        """Both together."""
        reasons = [*self.faults.reasons, *other.faults.reasons][:_SHOWN]
        faults = Faults(self.faults.count + other.faults.count, reasons)
        return Added(self.new + other.new, self.known + other.known, faults)


@dataclass(frozen=True)
class TuningLog:
    """An open log; `name` is its path or URL, for people.

    Every method raises LogError if the database fails; nothing that was added is lost then.
    `rules` are the rules that records may name; None takes any.
    """

    name: str
    engine: Engine = field(repr=False)
    readonly: bool = False
    rules: frozenset[str] | None = None

    def close(self) -> None:
        """Close its connections; a closed log opens new ones when it is used again."""
        self.engine.dispose()

    def __enter__(self) -> "TuningLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """A connection that sees the log as it stands at one moment."""
        with connect.guarded(self.name), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """A transaction: all of it is kept, or where anything is raised, nothing."""
        if self.readonly:
            raise LogError(f"tuning log {self.name} is read-only")
        with connect.guarded(self.name):
            writer = self.engine.connect().execution_options(writes=True)
            with writer as connection, connection.begin():
                if self.engine.dialect.name == "postgresql":  # nobody collects garbage meanwhile
                    connection.exec_driver_sql("LOCK TABLE records IN ROW EXCLUSIVE MODE")
                yield connection

    def insert(self, table: Table) -> Insert:
        """An insertion that leaves rows alone that are there already."""
        if self.engine.dialect.name == "postgresql":
            return postgresql.insert(table).on_conflict_do_nothing()
        return sqlite.insert(table).on_conflict_do_nothing()

    def describe(self, described: Iterable[Described]) -> None:
        """Keep what keys stand for; a record is taken once its three keys are described."""
        given = {entry.key: entry for entry in described}
        with self.reading() as connection:
            missing = given.keys() - rows.ids(connection, given).keys()
        if missing:
            values = [rows.from_described(given[key]) for key in sorted(missing)]
            with self.writing() as connection:
                connection.execute(self.insert(schema.descriptions), values)

    def add(self, records: Iterable[Record], described: Iterable[Described] = ()) -> Added:
        """Keep records, in batches that are kept whole or not at all.

        A record that is unfit is skipped and counted; one that is there already stays one.
        """
        self.describe(described)
        statement = self.insert(schema.records)
        faults, new, known = Faults(), 0, 0
        for batch in _batches(records):
            # All writers go by one order, so that no two of them wait for each other.
            fit = sorted((r for r in batch if self._fit(r, faults)), key=lambda r: (r.when, r.key))
            with self.writing() as connection:
                if values := _rows(connection, self, fit, faults):
                    done = connection.execute(statement, values, execution_options=_COUNTED)
                    new += done.rowcount
                    known += len(values) - done.rowcount
        return Added(new, known, faults)

    def _fit(self, record: Record, faults: Faults) -> bool:
        wrong = fault(record)
        if wrong is None and self.rules is not None and record.rule not in self.rules:
            wrong = f"no rule is named {record.rule!r}"
        if wrong is not None:
            faults.add(wrong)
        return wrong is None

    def records(
        self,
        workload: str | None = None,
        target: str | None = None,
        toolchain: str | None = None,
        faults: Faults | None = None,
    ) -> Iterator[Record]:
        """The records of these keys, in the order in which they came; damaged rows are skipped.

        `faults` takes those.
        """
        query = rows.of_keys(
            rows.select_records(), workload=workload, target=target, toolchain=toolchain
        )
        query = query.order_by(schema.records.c.id).execution_options(yield_per=_PAGE)
        with self.reading() as connection:
            for row in connection.execute(query):
                try:
                    yield rows.to_record(row)
                except InputError as error:
                    if faults is not None:
                        faults.add(str(error))

    def described(self, faults: Faults | None = None) -> Iterator[Described]:
        """What keys stand for; a description that does not fit its key is skipped."""
        query = select(schema.descriptions).order_by(schema.descriptions.c.id)
        query = query.execution_options(yield_per=_PAGE)
        with self.reading() as connection:
            for row in connection.execute(query):
                found = rows.description(row)
                if found is not None:
                    yield found
                elif faults is not None:
                    faults.add(f"description {row.id} of the log does not fit its key")

    def lookup(
        self,
        workload: str,
        target: Described,
        toolchain: Described,
        *,
        mode: str = "warm",
        usable: Usable = any_choice,
    ) -> Hit | Near | Miss:
        """The winner for a kernel, by its workload key, on a target by a toolchain.

        Of points that were timed in a model the fastest there goes before all others: what is
        fastest alone need not be.
        `usable` says of a choice why it cannot be used here.  The winner is the canonical one of
        those that the noise does not tell from the fastest, all of them checked for their answer.
        """
        with self.reading() as connection:
            return lookup(connection, Wanted(workload, target, toolchain, mode), usable)

    def claim(self, names: Iterable[str], owner: str, lease: float) -> list[str]:
        """Claim or renew work by its names (`claims.name`) for `lease` seconds.

        Returns the names that are the owner's now; the others somebody else is at.
        """
        with self.writing() as connection:
            return claims.claim(connection, names, owner, lease)

    def release(self, names: Iterable[str], owner: str) -> None:
        """Give claims back before they expire; those of others stay."""
        with self.writing() as connection:
            claims.release(connection, names, owner)

    def __len__(self) -> int:
        with self.reading() as connection:
            query = select(func.count()).select_from(schema.records)
            return int(connection.execute(query).scalar_one())


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _rows(
    connection: Connection, log: TuningLog, batch: Sequence[Record], faults: Faults
) -> list[dict[str, Any]]:
    """The rows of a batch; records whose keys nobody described are faults."""
    found = rows.ids(connection, {key for record in batch for key in _series_of(record)[:3]})
    owners = {owner for record in batch if found.keys() >= {*(owner := _series_of(record))[:3]}}
    numbers = _numbers(connection, log, owners, found)
    values: list[dict[str, Any]] = []
    for record in batch:
        if (owner := _series_of(record)) in numbers:
            values.append(rows.from_record(record, numbers[owner]))
        else:
            unknown = next(key for key in owner[:3] if key not in found)
            faults.add(f"nobody has described the key {unknown[:12]}… of a record")
    return values


def _series_of(record: Record) -> Series:
    return record.workload, record.target, record.toolchain, record.mode


def _numbers(
    connection: Connection, log: TuningLog, owners: set[Series], found: Mapping[str, int]
) -> dict[Series, int]:
    """The rows of series, which are made where there are none."""
    wanted = {(*(found[key] for key in owner[:3]), owner[3]): owner for owner in owners}
    there = _series(connection, {row[0] for row in wanted})
    if missing := sorted(wanted.keys() - there.keys()):
        names = ("workload", "target", "toolchain", "mode")
        values: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in missing]
        connection.execute(log.insert(schema.series), values)
        there = _series(connection, {row[0] for row in wanted})
    return {owner: there[row] for row, owner in wanted.items()}


def _series(connection: Connection, workloads: set[Any]) -> dict[tuple[Any, ...], int]:
    """The rows of all series of these workloads, by what they are of."""
    table, found = schema.series.c, dict[tuple[Any, ...], int]()
    listed = sorted(workloads)
    for start in range(0, len(listed), _PAGE):
        given = listed[start : start + _PAGE]
        query = select(table.workload, table.target, table.toolchain, table.mode, table.id)
        for *row, number in connection.execute(query.where(table.workload.in_(given))):
            found[tuple(row)] = number
    return found
