"""Records whose answers nobody compared, and which no tuning has had its turn with since."""

from collections.abc import Mapping

from sqlalchemy import func, or_, select

from hybridc.compiler.log import schema
from hybridc.compiler.log.access import GENERIC
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.log.store import TuningLog

# Their number, by the key of the workload and the rule.
Waiting = Mapping[tuple[str, str], int]

_RECORDS, _SERIES, _DESCRIBED = schema.records.c, schema.series.c, schema.descriptions.c
_UNCHECKED = str(Verdict.UNCHECKED)
_EACH = schema.records.join(schema.series, _RECORDS.series == _SERIES.id)
# The last row of each workload that a tuning of ours wrote: TVM's failures are no such.
_TUNED = (
    select(_SERIES.workload, func.max(_RECORDS.id).label("last"))
    .select_from(_EACH)
    .where(_RECORDS.verdict != _UNCHECKED, _RECORDS.rule != GENERIC)
    .group_by(_SERIES.workload)
    .subquery()
)
_WAITING = (
    select(_DESCRIBED.key, _RECORDS.rule, func.count(_RECORDS.id).label("number"))
    .select_from(
        _EACH.join(schema.descriptions, _DESCRIBED.id == _SERIES.workload).outerjoin(
            _TUNED, _TUNED.c.workload == _SERIES.workload
        )
    )
    .where(_RECORDS.verdict == _UNCHECKED, _RECORDS.median.is_not(None))
    .where(or_(_TUNED.c.last.is_(None), _RECORDS.id > _TUNED.c.last))
    .group_by(_DESCRIBED.key, _RECORDS.rule)
)


def waiting(log: TuningLog) -> Waiting:
    """How many there are of each kernel, by its workload's key and the records' rule."""
    with log.reading() as connection:
        return {(row.key.hex(), row.rule): row.number for row in connection.execute(_WAITING)}
