"""Ask a log what won: a hit, a near hit that says what differs, or a miss."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, ScalarSelect, bindparam, select

from hybridc.compiler.interfaces import Point
from hybridc.compiler.log import conditions, rows, schema
from hybridc.compiler.log.conditions import Difference
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.record import Record, in_model
from hybridc.compiler.log.search import Search, Usable
from hybridc.compiler.log.winner import Measured


@dataclass(frozen=True)
class Wanted:
    """The records that are asked for: of which kernel, measured where, with what, and how.

    `workload` is the kernel's key; `mode` is the state of the caches.
    """

    workload: str
    target: Described
    toolchain: Described
    mode: str


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


# Statements are built once: building them takes longer than they do.
_SERIES = schema.series.c
_EXACT = select(_SERIES.mode, _SERIES.id).where(
    _SERIES.workload == _key("key_of_workload"),
    _SERIES.target == _key("key_of_target"),
    _SERIES.toolchain == _key("key_of_toolchain"),
    _SERIES.mode.in_([bindparam("placed"), bindparam("mode")]),
)


def any_choice(_: Measured) -> None:
    """Take every choice as usable."""


def lookup(connection: Connection, wanted: Wanted, usable: Usable) -> Hit | Near | Miss:
    """What `TuningLog.lookup` finds."""
    search = Search(connection, usable)
    exact = {row.mode: row.id for row in connection.execute(_EXACT, _keys(wanted))}
    placed = in_model(wanted.mode)
    for taken in (placed, wanted.mode):
        if taken in exact and (found := search.best(exact[taken], strict=taken == placed)):
            return Hit(*found, tuple(search.skipped))
    for differs, number in _others(connection, wanted):
        if found := search.best(number):
            return Near(*found, differs, tuple(search.skipped))
    return Miss(tuple(search.skipped))


def best_of(connection: Connection, series: int) -> tuple[str, Point, float] | None:
    """The rule, the point and the seconds of a series' winner, whoever can use it."""
    found = Search(connection, any_choice).best(series)
    return None if found is None else (found[0].rule, found[0].point, found[1])


def _keys(wanted: Wanted) -> dict[str, Any]:
    return {
        "key_of_workload": bytes.fromhex(wanted.workload),
        "key_of_target": bytes.fromhex(wanted.target.key),
        "key_of_toolchain": bytes.fromhex(wanted.toolchain.key),
        "mode": wanted.mode,
        "placed": in_model(wanted.mode),
    }


def _others(connection: Connection, wanted: Wanted) -> list[tuple[tuple[Difference, ...], int]]:
    """The series of the same kernel, nearest first, with what differs from what is wanted.

    Times taken in a model differ in nothing, and go before those of the kernel alone.
    """
    query = select(schema.series).where(_SERIES.workload == _key("workload"))
    series = connection.execute(query, {"workload": bytes.fromhex(wanted.workload)}).all()
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
    placed = in_model(wanted.mode)
    for row in sorted(series, key=lambda row: (row.mode != placed, row.id)):
        there = described[row.target], described[row.toolchain]
        if there[0] is None or there[1] is None:
            continue  # nobody can say what these were measured on
        differs = conditions.between(wanted.target, there[0])
        differs += conditions.between(wanted.toolchain, there[1], "toolchain")
        if row.mode not in (wanted.mode, placed):
            differs.append(Difference("mode", wanted.mode, row.mode))
        found.append((tuple(differs), int(row.id)))
    return sorted(found, key=lambda entry: sum(d.weight for d in entry[0]))
