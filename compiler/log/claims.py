"""Claims that expire: several tuners share work, and nothing is measured twice.

Who claims a piece of work is the one to do it until the lease ends; a tuner that dies leaves
nothing behind but a lease that runs out.  Time is told by the clock of the database, which all
tuners share, and which may be set back.
"""

from collections.abc import Iterable, Mapping

from sqlalchemy import ColumnElement, Connection, Float, cast, delete, func, or_
from sqlalchemy.dialects import postgresql, sqlite

from hybridc.compiler.log.record import digest
from hybridc.compiler.log.schema import claims

_JULIAN_EPOCH = 2440587.5  # 1970 in the days that SQLite counts
_DAY = 86400.0
# No lease is longer, in seconds: what lasts beyond was claimed before the clock was set back.
_LONGEST = 120.0


def name(*parts: str | int | Mapping[str, int]) -> str:
    """The name of a piece of work: keys, a rule, a point or a number of a batch."""
    return digest([dict(part) if isinstance(part, Mapping) else part for part in parts])


def claim(connection: Connection, names: Iterable[str], owner: str, lease: float) -> list[str]:
    """What `TuningLog.claim` does, in one transaction."""
    now = _now(connection)
    ours: list[str] = []
    for work in sorted(set(names)):  # in one order, so that no two tuners wait for each other
        row = {"name": bytes.fromhex(work), "owner": owner, "expires": now + lease}
        kind = postgresql if connection.dialect.name == "postgresql" else sqlite
        taken = kind.insert(claims).values(row)
        free = or_(
            claims.c.expires < now,
            claims.c.expires > now + _LONGEST,
            claims.c.owner == owner,
        )
        taken = taken.on_conflict_do_update(
            index_elements=["name"],
            set_={"owner": owner, "expires": now + lease},
            where=free,
        ).returning(claims.c.name)
        if connection.execute(taken).first() is not None:
            ours.append(work)
    return ours


def release(connection: Connection, names: Iterable[str], owner: str) -> None:
    """What `TuningLog.release` does, in one transaction."""
    for work in sorted(set(names)):
        mine = (claims.c.name == bytes.fromhex(work), claims.c.owner == owner)
        connection.execute(delete(claims).where(*mine))


def expire(connection: Connection) -> int:
    """Remove the claims that ran out; how many there were."""
    return connection.execute(delete(claims).where(claims.c.expires < _now(connection))).rowcount


def _now(connection: Connection) -> ColumnElement[float]:
    """Unix time by the clock of the database."""
    if connection.dialect.name == "postgresql":
        return cast(func.extract("epoch", func.clock_timestamp()), Float)
    return (func.julianday("now") - _JULIAN_EPOCH) * _DAY
