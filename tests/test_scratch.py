"""Temporary folders: removed by their process, or by the next sweep after it was killed."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from child_runs import PATIENCE
from onnx_models import relu
from tvm.support import utils

from hybridc.compiler import driver, target
from hybridc.compiler.building import build
from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem import scratch
from hybridc.compiler.runtime import loading
from hybridc.compiler.tuning.candidates.pool import Pool

OWNER = """
import sys
from hybridc.compiler.filesystem.scratch import Folder
with Folder("tune") as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def owner(place: Path) -> tuple["subprocess.Popen[str]", Path]:
    """A process with a folder, and the folder."""
    running = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(place), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert running.stdout is not None
    return running, Path(running.stdout.readline().strip())


def test_a_folder_is_private_and_ends_with_its_block(place: Path) -> None:
    with scratch.Folder("tune") as name:
        path = Path(name)
        assert path.parent == place
        assert path.name.startswith("hybridc-tune-")
        assert path.stat().st_mode & 0o777 == 0o700
        scratch.sweep()
        (path / "inside").write_text("still there")
    assert not list(place.iterdir())
    folder = scratch.Folder()
    folder.cleanup()
    folder.cleanup()
    assert not list(place.iterdir())


def test_a_sweep_removes_what_the_killed_left_and_nothing_else(place: Path) -> None:
    (killed, remnant), (living, used) = owner(place), owner(place)
    (remnant / "libraries").mkdir()
    (remnant / "libraries" / "0.so").write_text("code")
    killed.send_signal(signal.SIGKILL)
    killed.wait(PATIENCE)
    (place / "hybridc-mine").mkdir()  # somebody else's, by chance with such a name
    linked = place / "hybridc-linked"
    linked.symlink_to(remnant, target_is_directory=True)
    scratch.sweep()
    assert not remnant.exists()
    assert sorted(place.iterdir()) == sorted([place / "hybridc-mine", linked, used])
    living.communicate("", timeout=PATIENCE)
    assert living.returncode == 0
    assert not used.exists()


def test_a_compilation_leaves_nothing_that_no_sweep_knows(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of TVM's own have no owner; and who compiles sweeps."""
    killed, remnant = owner(place)
    killed.kill()
    killed.wait(PATIENCE)
    own = Mock(side_effect=AssertionError)
    monkeypatch.setattr(utils, "tempdir", own)
    driver.compile(relu(), verify="off")
    assert not own.called
    assert not remnant.exists()


def test_what_a_tuning_starts_has_its_temporary_files_in_the_folder(place: Path) -> None:
    """It may be killed while a compiler of its writes some."""
    with Pool(1, 1) as opened:
        pool: Any = opened
        assert pool._processes._environment["TMPDIR"] == str(pool.folder)
    assert not list(place.iterdir())


def test_a_place_that_code_cannot_be_loaded_from_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hardened systems mount /tmp so."""
    scratch.check_code()
    status = SimpleNamespace(f_flag=os.ST_NOEXEC, f_blocks=0, f_bavail=0, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: status)
    with pytest.raises(InputError, match=f"{place} is mounted noexec.* set TMPDIR to"):
        scratch.check_code()
    with pytest.raises(InputError, match="noexec"):
        loading.library(b"code")
    with pytest.raises(InputError, match="noexec"):
        Pool(1)
    assert not list(place.iterdir())


def test_a_place_without_room_for_code_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLVM ends the process that finds no room, and candidates would be recorded as crashes."""
    scratch.check_space()
    status = SimpleNamespace(f_flag=0, f_blocks=0, f_bavail=10, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: status)
    scratch.check_space()  # a file system that does not tell its size
    status.f_blocks = 100
    for fails in (
        scratch.check_space,
        lambda: Pool(1),
        build.Begun(None, {}, target.parse("avx2")).finish,
    ):
        with pytest.raises(InputError, match=f"{place} has 40.96 kB left.* set TMPDIR to another"):
            fails()
    assert not list(place.iterdir())
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    with pytest.raises(InputError, match=r"files may have 1 kB at most \(ulimit -f\)"):
        scratch.check_space()


def test_a_place_whose_name_is_no_text_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """TVM takes none."""
    monkeypatch.setattr(tempfile, "tempdir", os.fsdecode(b"/tmp/caf\xe9"))
    for check in (scratch.check_code, scratch.check_space):
        with pytest.raises(InputError, match="a name that is not UTF-8: set TMPDIR"):
            check()
