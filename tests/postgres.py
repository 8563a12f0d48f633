"""A PostgreSQL server for tests, on the loopback interface and in a temporary directory."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest


def _programs() -> Path | None:
    """Where the server's programs are: Debian keeps them out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    path = shutil.which("initdb")
    return found[-1].parent if found else Path(path).parent if path else None


@contextlib.contextmanager
def server() -> Generator[str]:
    """The URL of a database of a server that ends with the context; skips where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    user = "nobody" if os.getuid() == 0 else None  # the server refuses to run as root
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="hybridc-pg-"))
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

    def call(*command: str) -> None:
        subprocess.run(
            [str(programs / command[0]), *command[1:]],
            check=True,
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )

    data, log = str(folder / "data"), str(folder / "log")
    options = f"-h 127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"
    try:
        call("initdb", "-D", data, "-A", "trust", "-U", "tester", "--no-sync", "-E", "UTF8")
        call("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
        try:
            yield f"postgresql://tester:secret@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
