"""Find the kernel of a log that is most like one that has no record."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select

from hybridc.compiler.log import rows, schema, workload
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.record import digest
from hybridc.compiler.log.store import TuningLog

_MOST = 5000  # kernels of one kind that are compared


@dataclass(frozen=True)
class Nearest:
    """A kernel with records that computes the same in other sizes, and where it differs."""

    described: Described
    differs: tuple[str, ...]


def nearest(log: TuningLog, wanted: Described) -> Nearest | None:
    """The kernel of the same kind whose sizes are nearest, or None if there is none."""
    best = next(iter(of_kind(log, wanted)), None)
    return Nearest(best, tuple(_differences(best, wanted))) if best else None


def of_kind(log: TuningLog, wanted: Described) -> list[Described]:
    """The other kernels with records that compute the same in other sizes, the nearest first."""
    kind = bytes.fromhex(digest(workload.skeleton(wanted.data)))
    table = schema.descriptions
    measured = select(schema.series.c.workload)
    query = select(table).where(table.c.skeleton == kind, table.c.id.in_(measured)).limit(_MOST)
    with log.reading() as connection:
        found = [rows.description(row) for row in connection.execute(query)]
    others = [each for each in found if each is not None and each.key != wanted.key]
    return sorted(others, key=lambda o: (workload.distance(o.data, wanted.data), o.key))


def _differences(found: Described, wanted: Described) -> Iterator[str]:
    there, here = (workload.parameters(each.data) for each in (found, wanted))
    for index, (one, other) in enumerate(zip(there, here, strict=True)):
        if one != other:
            yield f"argument {index}: {one} instead of {other}"
    if there == here:
        sizes = zip(workload.sizes(found.data), workload.sizes(wanted.data), strict=True)
        size, size_here = next(pair for pair in sizes if pair[0] != pair[1])
        yield f"a size within: {size} instead of {size_here}"
