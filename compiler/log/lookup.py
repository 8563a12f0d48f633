"""Ask a log what won: a hit, a near hit that says what differs, or a miss."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, ScalarSelect, bindparam, func, select, text

from hybridc.compiler.errors import InputError
from hybridc.compiler.interfaces import Point
from hybridc.compiler.log import rows, schema, winner
from hybridc.compiler.log.keys import Described, differences
from hybridc.compiler.log.record import Record
from hybridc.compiler.log.winner import Choice, Measured

Usable = Callable[[Measured], str | None]  # why a choice cannot be used here, or None

# How much a difference matters: a schedule is valid for other tools, and about as good on a
# machine that is a little faster; with other vectors, everything changes.
_WEIGHTS = {
    "toolchain": 1,
    "machine": 2,
    "mode": 4,
    "l3": 8,
    "l2": 16,
    "l1": 32,
    "threads": 64,
    "features": 128,
}
_GREATEST = 1000


@dataclass(frozen=True)
class Difference:
    """A field in which records are not what was asked for: `threads`, say, or `toolchain.tvm`."""

    name: str
    wanted: Any
    found: Any

    @property
    def weight(self) -> int:
        """How much it matters; the sum over all fields says which records are nearest."""
        return _WEIGHTS.get(self.name.split(".")[0], _GREATEST)

    def __str__(self) -> str:
        if isinstance(self.wanted, list) and isinstance(self.found, list):
            added = [f"+{item}" for item in self.found if item not in self.wanted]
            lacking = [f"-{item}" for item in self.wanted if item not in self.found]
            return f"{self.name}: {' '.join(added + lacking)}"
        return f"{self.name}: {self.found} instead of {self.wanted}"


@dataclass(frozen=True)
class Hit:
    """The winner among the records of exactly what was asked for; `seconds` is its median.

    `skipped` says of choices that would have won why they cannot be used.
    """

    record: Record
    seconds: float
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Near:
    """The winner among the nearest records of the same kernel, and what differs there."""

    record: Record
    seconds: float
    differs: tuple[Difference, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Miss:
    """No record of this kernel can be used; `nearest.nearest` finds the most similar kernel."""

    skipped: tuple[str, ...] = ()


def _key(name: str) -> ScalarSelect[int]:
    table = schema.descriptions.c
    return select(table.id).where(table.key == bindparam(name)).scalar_subquery()


# The statements of a look-up, built once: building them takes longer than they do.
_SERIES, _RECORDS = schema.series.c, schema.records.c
_EXACT = select(_SERIES.id).where(
    _SERIES.workload == _key("key_of_workload"),
    _SERIES.target == _key("key_of_target"),
    _SERIES.toolchain == _key("key_of_toolchain"),
    _SERIES.mode == bindparam("mode"),
)
_FIT = (
    _RECORDS.series == bindparam("series"),
    _RECORDS.verdict == text("'ok'"),  # as in the index, which a parameter would not match
    _RECORDS.choice.not_in(bindparam("out", expanding=True)),
)
_LOWEST = select(func.min(_RECORDS.median)).where(*_FIT)
_FAST = select(_RECORDS.choice).where(*_FIT, _RECORDS.median <= bindparam("limit"))
_POOL = select(
    *(_RECORDS.id, _RECORDS.choice, _RECORDS.rule, _RECORDS.point),
    *(_RECORDS.trace, _RECORDS.verdict, _RECORDS.seconds),
).where(_RECORDS.series == bindparam("series"), _RECORDS.choice.in_(_FAST))
_ONE = rows.whole().where(_RECORDS.id == bindparam("id"))


def any_choice(_: Measured) -> None:
    """Take every choice as usable."""


def lookup(  # noqa: PLR0913, PLR0917 - behind TuningLog.lookup, which names them
    connection: Connection,
    workload: str,
    target: Described,
    toolchain: Described,
    mode: str,
    usable: Usable,
) -> Hit | Near | Miss:
    """What `TuningLog.lookup` finds."""
    search = _Search(connection, usable)
    exact = connection.execute(_EXACT, _keys(workload, target, toolchain, mode)).scalar()
    if exact is not None and (found := search.best(exact)):
        return Hit(*found, tuple(search.skipped))
    for differs, number in _others(connection, workload, target, toolchain, mode):
        if found := search.best(number):
            return Near(*found, differs, tuple(search.skipped))
    return Miss(tuple(search.skipped))


def best_of(connection: Connection, series: int) -> tuple[str, Point, float] | None:
    """The rule, the point and the seconds of a series' winner, whoever can use it."""
    found = _Search(connection, any_choice).best(series)
    return None if found is None else (found[0].rule, found[0].point, found[1])


class _Row(NamedTuple):
    """What of a row decides who wins."""

    id: int
    choice: int
    rule: str
    point: Point
    trace: str
    verdict: str
    seconds: tuple[float, ...]


@dataclass
class _Search:
    """A look-up under way; what cannot be used is left out of the series and told once."""

    connection: Connection
    usable: Usable
    skipped: list[str] = field(default_factory=list[str])

    def best(self, series: int) -> tuple[Record, float] | None:
        """The winner of a series, and its time."""
        out: set[int] = set()  # choices that do not take part
        while ranked := self._fastest(series, out):
            won = winner.winner(ranked)
            if self.usable(won.group[0]):
                out |= {choice.group[0].choice for choice in ranked if self._unfit(choice)}
            elif record := self._load(won.group[0].id):
                return record, won.seconds
            else:
                out.add(won.group[0].choice)
        return None

    def _unfit(self, choice: Choice[_Row]) -> bool:
        reason = self.usable(choice.group[0])
        if reason and reason not in self.skipped:
            self.skipped.append(reason)
        return reason is not None

    def _fastest(self, series: int, out: set[int]) -> list[Choice[_Row]]:
        """The choices of a series that may be the winner, fastest first."""
        given: dict[str, Any] = {"series": series, "out": sorted(out)}
        limit = self.connection.execute(_LOWEST, given).scalar()
        while limit is not None:
            given["limit"] = limit * (1 + winner.WIDEST)
            found = self._rows(given)
            ranked = winner.choices(found)
            if not ranked:  # each of them was wrong once, or is damaged
                out |= {number for (number,) in self.connection.execute(_FAST, given)}
                return self._fastest(series, out)
            if ranked[0].seconds <= limit:
                return [choice for choice in ranked if choice.seconds <= given["limit"]]
            # One lucky sample drew the line too low for the medians of all samples.
            limit = ranked[0].seconds
        return []

    def _rows(self, given: Mapping[str, Any]) -> list[_Row]:
        """All that was measured of the fast choices; a damaged row is left out and told."""
        found: list[_Row] = []
        for row in self.connection.execute(_POOL, given):
            try:
                point, seconds = dict(json.loads(row.point)), json.loads(row.seconds)
                how = row.rule, point, row.trace, row.verdict
                found.append(_Row(row.id, row.choice, *how, tuple(map(float, seconds))))
            except (TypeError, ValueError) as error:
                self.skipped.append(f"row {row.id} of the log holds no record: {error}")
        return found

    def _load(self, number: int) -> Record | None:
        """The whole record of a row, checked; None, and the reason told, where it is damaged."""
        row = self.connection.execute(_ONE, {"id": number})
        try:
            return rows.to_record(row.one())
        except InputError as error:
            self.skipped.append(str(error))
            return None


def _keys(workload: str, target: Described, toolchain: Described, mode: str) -> dict[str, Any]:
    return {
        "key_of_workload": bytes.fromhex(workload),
        "key_of_target": bytes.fromhex(target.key),
        "key_of_toolchain": bytes.fromhex(toolchain.key),
        "mode": mode,
    }


def _others(
    connection: Connection, workload: str, target: Described, toolchain: Described, mode: str
) -> list[tuple[tuple[Difference, ...], int]]:
    """The series of the same kernel, nearest first, with what differs from what is wanted."""
    query = select(schema.series).where(_SERIES.workload == _key("workload"))
    series = connection.execute(query, {"workload": bytes.fromhex(workload)}).all()
    table = schema.descriptions
    described = {
        row.id: rows.description(row)
        for row in connection.execute(
            select(table).where(
                table.c.id.in_({number for row in series for number in (row.target, row.toolchain)})
            )
        )
    }
    found: list[tuple[tuple[Difference, ...], int]] = []
    for row in series:
        there = described[row.target], described[row.toolchain]
        if there[0] is None or there[1] is None:
            continue  # nobody can say what these were measured on
        differs = [Difference(*each) for each in differences(target.data, there[0].data)]
        tools = differences(toolchain.data, there[1].data, "toolchain")
        differs += [Difference(*each) for each in tools]
        if row.mode != mode:
            differs.append(Difference("mode", mode, row.mode))
        found.append((tuple(differs), int(row.id)))
    return sorted(found, key=lambda entry: (sum(d.weight for d in entry[0]), entry[1]))
