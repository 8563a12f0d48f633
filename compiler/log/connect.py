"""Open the database of a tuning log, and put what goes wrong with it into one line.

A file that is no tuning log, or one of a later hybridc, or is damaged, is refused as it stands:
nothing is ever created over it, repaired or rewritten.
"""

import os
import sqlite3
import struct
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from hybridc.compiler.errors import LogError, first_line
from hybridc.compiler.filesystem.files import reason
from hybridc.compiler.log import schema
from hybridc.compiler.log.urls import hidden, is_path

_WAIT = 60.0  # seconds that a writer waits for the others
_MAGIC = b"SQLite format 3\x00"
_HEADER = 100  # bytes of SQLite's header
_LEFT = "it is left as it is"
_CREATION = 0x6879_6272  # PostgreSQL's lock for those who create the tables at once
_POSTGRESQL = "postgresql+psycopg"


def parse(text: str) -> URL:
    """Read `postgresql://…`, `sqlite:///path` or a plain path.

    Raises LogError for another database.
    """
    if is_path(text):
        return URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # also of what is mistyped
        raise LogError(f"{hidden(text)!r} is not the URL of a tuning log") from None
    if url.drivername in ("postgresql", "postgres", _POSTGRESQL):
        return url.set(drivername=_POSTGRESQL)
    if url.drivername == "sqlite" and url.database:
        return url
    raise LogError(
        "a tuning log is a path, sqlite:///PATH or postgresql://USER@HOST/NAME,"
        f" not {hidden(text)!r}"
    )


def name_of(url: URL) -> str:
    """The log for people: its path, or its URL without the password."""
    if url.drivername == "sqlite":
        return str(url.database)
    plain = url.set(drivername="postgresql").difference_update_query(["password"])
    return plain.render_as_string(hide_password=True)


def connect(url: URL, readonly: bool = False) -> tuple[Engine, bool]:
    """Open or create a log; say also whether it can only be read.

    Raises LogError if that fails; what stands there is not touched then.
    """
    name = name_of(url)
    if url.drivername != "sqlite":
        return _prepared(_postgresql(url), name, readonly), readonly
    path = Path(str(url.database))
    _check_file(path)
    if path.exists() and path.stat().st_size and not readonly:
        # What is no log is seen before SQLite marks the file as one with many writers.
        engine = _sqlite(path, True)[0]
        with guarded(name):
            _is_log(engine, name)
        engine.dispose()
    engine, readonly = _sqlite(path, readonly)
    return _prepared(engine, name, readonly), readonly


@contextmanager
def guarded(name: str) -> Generator[None]:
    """Turn whatever the database raises into one line about the log of this name."""
    try:
        yield
    except DBAPIError as error:
        raise LogError(f"tuning log {name}: {_said(error.orig)}; {_LEFT}") from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise LogError(f"tuning log {name}: {_said(error)}; {_LEFT}") from error
    except UnicodeDecodeError as error:  # what SQLite says of a damaged schema quotes its bytes
        said = error.object.decode(errors="replace")
        raise LogError(f"tuning log {name}: {first_line(said)}; {_LEFT}") from error


def _said(error: BaseException | None) -> str:
    return first_line(error, "the database refuses")


def _prepared(engine: Engine, name: str, readonly: bool) -> Engine:
    """Create the tables where there are none, and check whose they are."""
    with guarded(name):
        if _is_log(engine, name):
            return engine
        if readonly:
            raise LogError(f"tuning log {name} is empty; `hybridc tune MODEL` fills one")
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATION})")
            if schema.facts.name not in inspect(connection).get_table_names():
                schema.metadata.create_all(connection)
                row = {"name": "schema", "value": str(schema.VERSION)}
                connection.execute(schema.facts.insert().values(row))
    return engine


def _is_log(engine: Engine, name: str) -> bool:
    """Whether the tables are there.

    Raises LogError if they are of another version, or a file holds tables of somebody else.
    """
    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
        if schema.facts.name in tables:
            _check_version(connection, name)
            return True
    if tables and engine.dialect.name == "sqlite":
        raise LogError(f"{name} is a database, but not a tuning log; {_LEFT}")
    return False


def _check_version(connection: Connection, name: str) -> None:
    query = select(schema.facts.c.value).where(schema.facts.c.name == "schema")
    found = connection.execute(query).scalar()
    if found != str(schema.VERSION):
        raise LogError(
            f"tuning log {name} has schema {found!r}, this hybridc reads '{schema.VERSION}':"
            f" use the hybridc that wrote it to export it; {_LEFT}"
        )


def _postgresql(url: URL) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True)
    except (ImportError, NoSuchModuleError):
        raise LogError(
            "a log in PostgreSQL needs psycopg: pip install 'hybridc[postgresql]'"
        ) from None


def _sqlite(path: Path, readonly: bool) -> tuple[Engine, bool]:
    exists = path.exists()
    if not exists and readonly:
        raise LogError(f"there is no tuning log {path}; `hybridc tune MODEL` creates one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogError(f"cannot create tuning log {path}: {reason(error)}") from error
    beside = os.access(path.parent, os.W_OK)  # SQLite wants files there, of readers too
    readonly = readonly or (exists and not (beside and os.access(path, os.W_OK)))
    # Where nobody can write, nobody does; and only so can SQLite read without a file of locks.
    options = f"mode=ro{'' if beside else '&immutable=1'}" if readonly else "mode=rwc"
    address = f"{path.absolute().as_uri()}?{options}"

    def open_file() -> sqlite3.Connection:
        return _connection(address, readonly)

    engine = create_engine("sqlite://", creator=open_file, poolclass=QueuePool)
    event.listen(engine, "begin", _begin)
    return engine, readonly


def _connection(address: str, readonly: bool) -> sqlite3.Connection:
    """Many writers at once, nothing committed is lost, and nobody waits for ever."""
    connection = sqlite3.connect(
        address, _WAIT, isolation_level=None, check_same_thread=False, uri=True
    )
    # Text that is damaged spoils its row, which does not fit its key then, and no other.
    connection.text_factory = lambda text: text.decode(errors="replace")
    connection.execute("PRAGMA foreign_keys = ON")
    if not readonly:
        connection.execute("PRAGMA synchronous = FULL")
        if connection.execute("PRAGMA page_count").fetchone()[0] == 0:  # of a new file alone
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
    return connection


def _begin(connection: Connection) -> None:
    """A writer that began as a reader would be refused, not made to wait."""
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_file(path: Path) -> None:
    """Refuse what SQLite would refuse later, or write over."""
    try:
        if not path.exists():
            return
        if not path.is_file():
            raise LogError(f"tuning log {path} is not a regular file")
        with path.open("rb") as stream:
            head = stream.read(_HEADER)
        size = path.stat().st_size
    except OSError as error:
        raise LogError(f"cannot read tuning log {path}: {reason(error)}") from error
    if not head.startswith(_MAGIC[: len(head)]):
        raise LogError(f"{path} is not a tuning log: its content is something else; {_LEFT}")
    journal = path.with_name(f"{path.name}-wal")
    pending = journal.exists() and journal.stat().st_size > 0  # what is there is not all there is
    if head and not pending and size < (whole := _whole(head)):
        raise LogError(f"tuning log {path} is cut short: {size} of {whole} bytes; {_LEFT}")


def _whole(head: bytes) -> int:
    """The size that SQLite's header tells: pages of a size in which 1 stands for 64 KiB."""
    if len(head) < _HEADER:
        return _HEADER
    page: int
    pages: int
    page, pages = struct.unpack_from(">H10xI", head, 16)
    return (2**16 if page == 1 else page) * pages
