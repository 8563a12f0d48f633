"""Find the winner of a series without reading more of it than may win."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Float, bindparam, cast, func, select, text

from hybridc.compiler.errors import InputError
from hybridc.compiler.log import rows, schema, winner
from hybridc.compiler.log.record import Record
from hybridc.compiler.log.winner import Choice, DamagedError, Measured

# Up to here above the lowest median may lie what is tied.
_REACH = 1 + winner.WIDEST

Usable = Callable[[Measured], str | None]  # why a choice cannot be used here, or None


def _pool(*without: Any) -> Any:
    """All that was measured of the choices with a median up to a limit.

    The limit is given, or null: then it lies as far above the lowest median as a tie can reach.
    """
    table = schema.records.c
    fit = (
        table.series == bindparam("series"),
        table.verdict == text("'ok'"),  # as in the index, which a parameter would not match
        *without,
    )
    lowest = select(func.min(table.median)).where(*fit).scalar_subquery()
    limit = func.coalesce(cast(bindparam("limit"), Float), lowest * _REACH)
    fast = select(table.choice).where(*fit, table.median <= limit)
    columns = (table.id, table.choice, table.rule, table.point, table.trace)
    return select(*columns, table.verdict, table.median, table.seconds).where(
        table.series == bindparam("series"), table.choice.in_(fast)
    )


# Statements are built once: building them takes longer than they do.  Most look-ups leave nothing
# out, and a list of parameters has its price even where it is empty.
_POOL = _pool()
_POOL_WITHOUT = _pool(schema.records.c.choice.not_in(bindparam("out", expanding=True)))
_ONE = rows.select_records().where(schema.records.c.id == bindparam("id"))


@dataclass
class Search:
    """A look-up under way; what cannot be used is left out of the series and told once."""

    connection: Connection
    usable: Usable
    skipped: list[str] = field(default_factory=list[str])
    damaged: set[int] = field(default_factory=set[int])  # rows

    def best(self, series: int, strict: bool = False) -> tuple[Record, float] | None:
        """The winner of a series, and its time; `strict` lets no tie take it from the fastest."""
        out: set[int] = set()  # choices that do not take part
        while True:
            try:
                ranked = self._fastest(series, out)
                if not ranked:
                    return None
                won = ranked[0] if strict else winner.winner(ranked)
            except DamagedError as error:
                self._tell(error)
                continue
            if self.usable(won.group[0]):
                out |= {choice.group[0].choice for choice in ranked if self._unfit(choice)}
            elif record := self._load(won.group[0].id):
                return record, won.seconds

    def _unfit(self, choice: Choice) -> bool:
        reason = self.usable(choice.group[0])
        if reason and reason not in self.skipped:
            self.skipped.append(reason)
        return reason is not None

    def _fastest(self, series: int, out: set[int]) -> list[Choice]:
        """The choices of a series that may be the winner, fastest first."""
        limit: float | None = None
        while raw := self._rows(series, limit, out):
            ranked = winner.choices(self._read(raw))
            if not ranked:  # each of them was wrong once, or is damaged
                out |= {row.choice for row in raw}
                limit = None
                continue
            least = min(row.median for row in raw if row.verdict == "ok" and row.median)
            highest = limit or least * _REACH
            best = ranked[0].seconds
            if best * _REACH <= highest:
                return [choice for choice in ranked if choice.seconds <= best * _REACH]
            # One lucky sample drew the line too low for the medians of all samples.
            limit = best * _REACH
        return []

    def _rows(self, series: int, limit: float | None, out: set[int]) -> Sequence[Any]:
        given: dict[str, Any] = {"series": series, "limit": limit}
        if out:
            return self.connection.execute(_POOL_WITHOUT, {**given, "out": sorted(out)}).all()
        return self.connection.execute(_POOL, given).all()

    def _read(self, raw: Sequence[Any]) -> Iterator[Measured]:
        """What rows say; those that are damaged are left out and told."""
        whole = [row for row in raw if row.id not in self.damaged] if self.damaged else raw
        try:  # one call for all of them takes a third of the time
            points: list[Any] = json.loads(f"[{','.join([row.point for row in whole])}]")
        except (TypeError, ValueError, RecursionError):
            points = []
        if len(points) != len(whole):
            points = [_point(row.point) for row in whole]
        for row, point in zip(whole, points, strict=True):
            id_, choice, rule, _, trace, verdict, median, seconds = row
            if _is_point(point) and (median is not None or verdict != "ok"):
                middle = math.nan if median is None else median
                yield Measured(id_, choice, rule, point, trace, verdict, middle, seconds)
            else:
                self._tell(DamagedError(id_, "its point or its median is none"))

    def _tell(self, error: DamagedError) -> None:
        self.damaged.add(error.row)
        self.skipped.append(str(error))

    def _load(self, number: int) -> Record | None:
        """The whole record of a row, checked; None, and the reason told, where it is damaged."""
        row = self.connection.execute(_ONE, {"id": number})
        try:
            return rows.to_record(row.one())
        except InputError as error:
            self.damaged.add(number)
            self.skipped.append(str(error))
            return None


def _point(text: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None


def _is_point(data: Any) -> bool:
    return type(data) is dict and all(type(value) is int for value in data.values())
