"""Look into a log by hand: its latest records, and what a key stands for."""

from itertools import islice

from sqlalchemy import select

from hybridc.compiler.errors import InputError
from hybridc.compiler.log import rows, schema
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.record import KEY_DIGITS, Record
from hybridc.compiler.log.store import Faults, TuningLog

_SHORTEST = 4  # digits of a key


def latest(log: TuningLog, workload: str | None, limit: int, faults: Faults) -> list[Record]:
    """The records that came last, of one kernel or of all, the newest first.

    `faults` takes damaged rows, in whose place older ones are listed.
    """
    query = rows.of_keys(rows.select_records(), workload=workload).order_by(
        schema.records.c.id.desc()
    )
    found: list[Record] = []
    with log.reading() as connection:
        for row in connection.execute(query.execution_options(yield_per=limit)):
            try:
                found.append(rows.to_record(row))
            except InputError as error:
                faults.add(str(error))
            if len(found) == limit:
                break
    return found


def find(log: TuningLog, digits: str, kind: str | None = None) -> Described:
    """What the key that begins with these digits stands for.

    A record's key finds nothing: a record says itself what it is.  Raises InputError if no key
    or more than one begins so.
    """
    if not _SHORTEST <= len(digits) <= KEY_DIGITS or set(digits) - set("0123456789abcdef"):
        raise InputError(f"a key is {_SHORTEST} to {KEY_DIGITS} hexadecimal digits, not {digits!r}")
    table = schema.descriptions.c
    first = bytes.fromhex(digits.ljust(KEY_DIGITS, "0"))
    last = bytes.fromhex(digits.ljust(KEY_DIGITS, "f"))
    query = select(schema.descriptions).where(table.key.between(first, last))
    if kind is not None:
        query = query.where(table.kind == kind)
    with log.reading() as connection:
        found = list(islice(connection.execute(query), 2))
    if len(found) != 1:
        what = f"{'more than one' if found else 'no'} {kind or 'description'}"
        raise InputError(f"tuning log {log.name} has {what} with a key of {digits}")
    described = rows.description(found[0])
    if described is None:
        raise InputError(f"tuning log {log.name}: what {digits} stands for is damaged")
    return described
