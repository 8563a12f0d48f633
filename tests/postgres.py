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
from child_runs import PATIENCE


def _programs() -> Path | None:
    """Where the server's programs are: Debian keeps them out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    path = shutil.which("initdb")
    return found[-1].parent if found else Path(path).parent if path else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def server() -> Generator[str]:
    """The URL of a database of a server that ends with the context; skips where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    user = "nobody" if os.getuid() == 0 else None  # the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="hybridc-pg-"))
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

    def call(*command: str, check: bool = True) -> bool:
        done = subprocess.run(
            [str(programs / command[0]), *command[1:]],
            check=check,
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode == 0

    data, log = str(folder / "data"), str(folder / "log")
    control = ("pg_ctl", "-D", data, "-w", "-t", str(PATIENCE))

    def start(port: int, check: bool) -> bool:
        options = f"-h 127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"
        return call(*control, "-l", log, "-o", options, "start", check=check)

    try:
        call("initdb", "-D", data, "-A", "trust", "-U", "tester", "--no-sync", "-E", "UTF8")
        port = _free_port()
        if not start(port, False):  # somebody else may have taken it meanwhile
            port = _free_port()
            start(port, True)
        try:
            yield f"postgresql://tester:secret@127.0.0.1:{port}/postgres"
        finally:
            call(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
