"""What happens to a tuning log when things go wrong: one line is said, and nothing is lost."""

import gc
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from log_records import TARGET, TOOLS, kernel, keys, record, sweep

from hybridc.cli import main
from hybridc.compiler.errors import LogError
from hybridc.compiler.log import access, schema
from hybridc.compiler.log.store import Faults

DESCRIBED = (kernel(), TARGET, TOOLS)
NOBODY = 65534
DEEP = "replace(hex(zeroblob(50000)), '0', '[')"  # JSON in 100,000 brackets, as SQLite makes it
# Writes records, and says after each batch which of them are committed.
WRITER = """
import sys
sys.path.insert(0, {tests!r})
from log_records import TARGET, TOOLS, kernel, record
from hybridc.compiler.log import access
who, batches = sys.argv[1], int(sys.argv[2])
with access.open_log({path!r}) as log:
    for batch in range(batches):
        given = [record(who=who, seed=batch * 100 + n) for n in range(100)]
        added = log.add(given, (kernel(), TARGET, TOOLS))
        assert added.new == 100, added
        print(batch, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with ten records, closed."""
    path = tmp_path / "log.sqlite"
    with access.open_log(str(path)) as log:
        log.add(sweep(10), DESCRIBED)
    return path


def refused(path: Path) -> str:
    """What is said of a log that cannot be opened; its file is as it was before."""
    content = path.read_bytes()
    for readonly in (True, False):
        with pytest.raises(LogError) as caught, access.open_log(str(path), readonly=readonly):
            pass
    assert path.read_bytes() == content
    said = str(caught.value)
    assert str(path) in said
    assert "\n" not in said
    return said


def test_of_many_writers_two_are_killed_and_nothing_committed_is_lost(tmp_path: Path) -> None:
    path, batches = str(tmp_path / "log.sqlite"), 15
    code = WRITER.format(tests=str(Path(__file__).parent), path=path)
    commands = [  # those that are killed would go on for ever
        [sys.executable, "-c", code, f"w{n}", str(10**9 if n in (0, 1) else batches)]
        for n in range(8)
    ]
    writers = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in commands]
    said: dict[int, list[str]] = {}
    for n in (0, 1):  # in the middle of their work
        stream = writers[n].stdout
        assert stream is not None
        said[n] = [stream.readline(), stream.readline()]
        writers[n].send_signal(signal.SIGKILL)
    for n, writer in enumerate(writers):
        rest, _ = writer.communicate(timeout=600)
        said[n] = [*said.get(n, []), *rest.splitlines(keepends=True)]
        assert writer.returncode == (-signal.SIGKILL if n in (0, 1) else 0)
    with access.open_log(path) as log:
        found: dict[str, int] = {}
        for each in log.records():
            found[each.who] = found.get(each.who, 0) + 1
    for n in range(8):
        committed = len([line for line in said[n] if line.endswith("\n")])
        assert found[f"w{n}"] >= 100 * committed
        assert found[f"w{n}"] % 100 == 0, "half a batch"
        assert n in (0, 1) or found[f"w{n}"] == 100 * batches
    assert integrity(Path(path)) == "ok"


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"SQLite format 2\0" + b"x" * 500, b"{}"])
def test_what_is_no_log_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    if content:
        assert "is not a tuning log" in refused(path)
        return
    with access.open_log(str(path)) as log:  # an empty file is a log to be
        assert len(log) == 0


@pytest.mark.parametrize("kept", [20, 99, 100, 4096, 0.5, 0.99])
def test_a_torn_log_is_left_alone(path: Path, kept: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    assert "cut short" in refused(path)


def test_pages_of_garbage_are_one_line(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    said = refused(path)
    assert "malformed" in said or "not a database" in said or "is a database, but" in said


def test_a_page_of_garbage_spoils_what_it_held_alone(path: Path) -> None:
    root = sqlite3.connect(path).execute(
        "SELECT rootpage FROM sqlite_master WHERE name = 'records'"
    )
    page = int(root.fetchone()[0])
    content = bytearray(path.read_bytes())
    content[4096 * (page - 1) : 4096 * page] = bytes(4096)
    path.write_bytes(content)
    with access.open_log(str(path)) as log:
        assert {each.key for each in log.described()} == {each.key for each in DESCRIBED}
        with pytest.raises(LogError, match="malformed"):
            log.add([record(seed=5)])


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE records SET seconds = '[1.0,,2.0]' WHERE id = 10",
        "UPDATE records SET seconds = CAST(x'5b312e30ff5d' AS TEXT) WHERE id = 10",
        "UPDATE records SET who = CAST(x'ff' AS TEXT) WHERE id = 10",
        f"UPDATE records SET point = {DEEP} WHERE id = 10",
    ],
)
def test_a_damaged_row_is_skipped_and_told(
    path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By whatever lists or copies; text that is not UTF-8 spoils no other row."""
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    assert main.run(["log", "ls", "--log", str(path), "--limit", "9", "--json"]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 9
    assert ", 1 skipped: row 10 of the log " in said.err
    copied = path.with_suffix(".jsonl")
    assert main.run(["log", "export", str(copied), "--log", str(path)]) == 0
    assert "9 records, 1 skipped: row 10 of the log " in capsys.readouterr().out


@pytest.mark.parametrize("text", ["CAST(x'ff' AS TEXT)", DEEP])
def test_a_description_that_is_no_text_is_skipped(path: Path, text: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE descriptions SET data = {text} WHERE id = 1")
    connection.commit()
    connection.close()
    with access.open_log(str(path)) as log:
        assert len(list(log.described(faults := Faults()))) == len(DESCRIBED) - 1
    assert faults.count == 1


def test_a_schema_that_is_no_text_is_one_line(path: Path) -> None:
    """What SQLite says then quotes bytes that are not UTF-8."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b"CREATE TABLE series", b"CREATE TABLE\xd2series", 1))
    assert "malformed database schema" in refused(path)


def test_a_newer_log_is_left_alone(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE hybridc_log SET value = '2'")
    connection.commit()
    connection.close()
    assert "schema '2'" in refused(path)
    assert schema.VERSION == 1


def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE history (url TEXT)")
    connection.close()
    assert "not a tuning log" in refused(path)


def test_a_directory_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="not a regular file"):
        access.open_log(str(tmp_path))


def test_a_log_below_a_file_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="tuning log"):
        access.open_log(str(tmp_path / "file" / "log.sqlite"))


def test_to_read_a_log_that_is_not_there_creates_none(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="there is no tuning log"):
        access.open_log(str(tmp_path / "none.sqlite"), readonly=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="hybridc-log-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def run_apart(work: Callable[[], None]) -> int:
    """Do something in a process of its own, in which all that is needed is imported already."""

    def alone() -> None:
        gc.freeze()  # what other tests left may wait for threads that are not there
        work()

    process = multiprocessing.get_context("fork").Process(target=alone, daemon=True)
    process.start()
    process.join(600)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder_too", [False, True])
def test_a_log_that_one_may_not_write_can_be_read(
    path: Path, public: Path, folder_too: bool
) -> None:
    copy = Path(shutil.copy(path, public / "log.sqlite"))
    copy.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    public.chmod(0o555 if folder_too else 0o777)

    def work() -> None:
        if os.getuid() == 0:
            os.setuid(NOBODY)  # root may write everything
        with access.open_log(str(copy)) as log:
            assert log.readonly
            assert len(keys(log)) == 10
            with pytest.raises(LogError, match="is read-only"):
                log.add([record(seed=7)])

    assert run_apart(work) == 0


@pytest.mark.filterwarnings("ignore")
def test_a_full_disk_loses_nothing_that_was_committed(path: Path) -> None:
    size = path.stat().st_size

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        log = access.open_log(str(path))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50_000, size + 50_000))
        with pytest.raises(LogError, match=r"full|I/O"):
            log.add([record(seed=n, who="full") for n in range(20_000)])
        os._exit(0)  # as if killed: nothing is tidied up

    assert run_apart(work) == 0
    with access.open_log(str(path)) as log:
        assert {each.key for each in sweep(10)} <= keys(log)
        assert len(log) < 20_010
        log.add([record(seed=1, who="after")])
    assert integrity(path) == "ok"


def test_a_writer_waits_for_another(path: Path) -> None:
    busy = sqlite3.connect(path, isolation_level=None)
    busy.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool, access.open_log(str(path)) as log:
        adding = pool.submit(log.add, [record(seed=77)])
        time.sleep(0.5)
        assert not adding.done()
        busy.execute("COMMIT")
        assert adding.result(600).new == 1
    busy.close()
