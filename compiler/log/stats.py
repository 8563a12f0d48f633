"""What a log holds, in numbers: how much of what, and the best of every kernel."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from hybridc.compiler.log import rows, schema, unchecked, upkeep, workload
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.lookup import best_of
from hybridc.compiler.log.store import TuningLog


@dataclass(frozen=True)
class Best:
    """The winner of a series, how many choices it had, and how many records there are of it."""

    workload: Described
    target: str
    toolchain: str
    mode: str
    rule: str
    point: dict[str, int]
    seconds: float | None
    choices: int
    records: int

    def to_json(self) -> dict[str, Any]:
        """As JSON data; the kernel by its key and its arguments."""
        data = {**vars(self), "workload": self.workload.key}
        return {**data, "arguments": workload.parameters(self.workload.data)}


def summary(log: TuningLog) -> dict[str, Any]:
    """Counts of records by verdict and by rule, of what they are about, and bytes.

    `waiting` are those that nobody checked, and that came after the last tuning of their kernel.
    """
    table = schema.records.c
    with log.reading() as connection:

        def counts(column: Any) -> dict[str, int]:
            query = select(column, func.count()).group_by(column).order_by(column)
            return {str(name): int(number) for name, number in connection.execute(query)}

        kinds = counts(schema.descriptions.c.kind)
        verdicts, rules = counts(table.verdict), counts(table.rule)
    return {
        "log": log.name,
        "records": sum(verdicts.values()),
        "verdicts": verdicts,
        "rules": rules,
        "waiting": sum(unchecked.waiting(log).values()),
        **{f"{kind}s": kinds.get(kind, 0) for kind in ("workload", "target", "toolchain")},
        "bytes": upkeep.size(log),
    }


def best(log: TuningLog) -> Iterator[Best]:
    """The best of every series, those with the most records first."""
    table, target, toolchain = schema.records.c, *_aliases()
    query = (
        select(
            schema.series.c.id,
            schema.series.c.mode,
            schema.descriptions.c.kind,
            schema.descriptions.c.key,
            schema.descriptions.c.data,
            target.c.key.label("target"),
            toolchain.c.key.label("toolchain"),
            func.count(table.id).label("records"),
            func.count(table.choice.distinct()).label("choices"),
        )
        .join(schema.records, table.series == schema.series.c.id)
        .join(schema.descriptions, schema.descriptions.c.id == schema.series.c.workload)
        .join(target, target.c.id == schema.series.c.target)
        .join(toolchain, toolchain.c.id == schema.series.c.toolchain)
        .group_by(*schema.series.c, *schema.descriptions.c, target.c.key, toolchain.c.key)
        .order_by(func.count(table.id).desc(), schema.series.c.id)
    )
    with log.reading() as connection:
        for row in connection.execute(query).all():
            described = rows.description(row)
            if described is not None:
                yield _best(row, described, best_of(connection, row.id))


def _best(row: Any, described: Described, found: Any) -> Best:
    rule, point, seconds = found or ("", {}, None)
    keys = (row.target.hex(), row.toolchain.hex(), row.mode)
    return Best(described, *keys, rule, dict(point), seconds, row.choices, row.records)


def _aliases() -> tuple[Any, Any]:
    return schema.descriptions.alias("target"), schema.descriptions.alias("toolchain")
