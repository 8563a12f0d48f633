"""The tables of a tuning log, the same in SQLite and PostgreSQL.

Rows are added and, but for `log gc`, never changed or removed.  A series is one workload on one
target by one toolchain in one mode; the records of a series compete.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

VERSION = 1  # raise it with every change that an older hybridc would misread

metadata = MetaData()

# SQLite numbers rows by itself only where the key is its INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

facts = Table(
    "hybridc_log",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", String(200), nullable=False),
)

descriptions = Table(
    "descriptions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("key", LargeBinary(32), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("skeleton", LargeBinary(32)),  # of workloads: what kernels of other sizes share
    Column("data", Text, nullable=False),
    Index("descriptions_by_skeleton", "skeleton"),
)


def _described(name: str) -> "Column[int]":
    return Column(name, _Id, ForeignKey("descriptions.id"), nullable=False)


series = Table(
    "series",
    metadata,
    Column("id", _Id, primary_key=True),
    _described("workload"),
    _described("target"),
    _described("toolchain"),
    Column("mode", String(200), nullable=False),
    UniqueConstraint("workload", "target", "toolchain", "mode"),
)

_OK = text("verdict = 'ok'")

records = Table(
    "records",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("key", LargeBinary(32), nullable=False, unique=True),
    Column("series", _Id, ForeignKey("series.id"), nullable=False),
    Column("choice", BigInteger, nullable=False),  # 64 bits of the digest of rule and point
    Column("rule", String(200), nullable=False),
    Column("point", Text, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("median", Float),  # of the samples; null where there are none
    Column("seconds", Text, nullable=False),
    Column("predicted", Float),
    Column("moment", Float, nullable=False),
    Column("who", String(200), nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("trace", Text, nullable=False),
    # The fastest of a series, then all that is known of a choice.
    Index("records_by_time", "series", "median", sqlite_where=_OK, postgresql_where=_OK),
    Index("records_by_choice", "series", "choice"),
)

claims = Table(
    "claims",
    metadata,
    Column("name", LargeBinary(32), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("expires", Float, nullable=False),  # Unix time, by the clock of the database
)
