"""Saving is all or nothing, whatever the disk, the system or the user does meanwhile."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child_runs import run_child
from example_artifact import make

from hybridc.compiler.errors import ArtifactError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"report": {"latency": float("nan")}}, "must be JSON"),
        ({"certificate": {"when": object()}}, "must be JSON"),
        ({"weights": {"w": np.zeros(3, np.complex64)}}, "complex64"),
        ({"weights": {"__pad.1": np.zeros(3)}}, "cannot be named"),
    ],
)
def test_what_cannot_be_stored_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        make(**changes).save(tmp_path / "m.hyb")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for path, message in [
        (tmp_path / "none" / "m.hyb", "No such file"),
        (tmp_path / "file" / "m.hyb", "Not a directory"),
        (tmp_path, "not a regular file"),
    ]:
        with pytest.raises(ArtifactError, match=message) as error:
            make().save(path)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    path = tmp_path / "m.hyb"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(ArtifactError, match=os.strerror(code)):
        make().save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.hyb"
    path.write_text("old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make().save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


SAVE_LARGE = """
import dataclasses, os, resource, signal, sys
import numpy as np
from hybridc.compiler.artifacts.artifact import Artifact
path = sys.argv[1]
old = Artifact.load(path)
large = dataclasses.replace(old, weights={"w": np.ones(10**6, np.float32)})
"""


def test_a_file_size_limit_leaves_the_old_file(tmp_path: Path, artifact_bytes: bytes) -> None:
    path = tmp_path / "m.hyb"
    path.write_bytes(artifact_bytes)
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))\n"
    done = run_child(SAVE_LARGE + limit + "large.save(path)", path)
    assert "ArtifactError: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert path.read_bytes() == artifact_bytes
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, artifact_bytes: bytes) -> None:
    """A real one: a small file system in memory, in a mount name space of its own."""
    (tmp_path / "m.hyb").write_bytes(artifact_bytes)
    mount = 'mount -t tmpfs -o size=128k none "$1" && shift && exec "$@"'
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mountable = subprocess.run([*prefix, disk, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if mountable.returncode:
        pytest.skip("this system lets nobody mount a file system of their own")
    code = SAVE_LARGE + (
        "target = sys.argv[2] + '/m.hyb'\n"
        "old.save(target)\n"
        "try:\n    large.save(target)\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
        "print(os.listdir(sys.argv[2]), open(target, 'rb').read() == open(path, 'rb').read())\n"
    )
    done = run_child(code, tmp_path / "m.hyb", disk, prefix=(*prefix, str(disk)))
    assert "ArtifactError cannot write" in done.stdout, done.stderr
    assert "No space left on device" in done.stdout
    assert "['m.hyb'] True" in done.stdout


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path, artifact_bytes: bytes) -> None:
    path = tmp_path / "m.hyb"
    path.write_bytes(artifact_bytes)
    kill = "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
    done = run_child(SAVE_LARGE + kill + "large.save(path)", path)
    assert done.returncode == -9
    assert path.read_bytes() == artifact_bytes


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    make().save(tmp_path / "m.hyb")
    assert (tmp_path / "m.hyb").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_without_permission_is_named(tmp_path: Path, artifact_bytes: bytes) -> None:
    """As nobody in particular, since root may write anywhere."""
    (tmp_path / "m.hyb").write_bytes(artifact_bytes)
    (tmp_path / "m.hyb").chmod(0o444)
    tmp_path.chmod(0o555)
    drop = "if os.geteuid() == 0:\n    os.setuid(65534)\n"
    done = run_child(SAVE_LARGE + drop + "large.save(path)", tmp_path / "m.hyb")
    assert "ArtifactError: cannot write" in done.stderr
    assert "Permission denied" in done.stderr
    assert (tmp_path / "m.hyb").read_bytes() == artifact_bytes
