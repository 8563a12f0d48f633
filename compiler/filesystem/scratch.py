"""Temporary folders, and what is left of those whose process was killed.

Each holds a file that its process keeps locked.  However the process ends, the system unlocks the
file then, so that whoever can lock it knows that nobody uses the folder any more.
"""

import fcntl
import os
import resource
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from hybridc.compiler.errors import InputError
from hybridc.compiler.text.units import format_size

_PREFIX = "hybridc-"
_ROOM = 16 * 2**20  # bytes for the code of a model: a few MB where it has hundreds of kernels
_ATTEMPTS, _PAUSE = 5, 0.1  # to remove a folder, and seconds between two of them
_OWNED = ".hybridc-owned"  # the file; its name is the proof that a folder is one of these


class Folder(tempfile.TemporaryDirectory[str]):
    """A temporary folder of mode 0700: a context manager that gives its path and removes it.

    `kind` is the beginning of its name, for people.
    """

    def __init__(self, kind: str = "") -> None:
        super().__init__(prefix=f"{_PREFIX}{kind}-" if kind else _PREFIX)
        self._lock = _locked(Path(self.name))

    def cleanup(self) -> None:
        """Remove the folder; harmless if that was done.

        What was killed just now may still write into it, which is worth no error.
        """
        for _ in range(_ATTEMPTS):
            with suppress(OSError):
                super().cleanup()
                break
            time.sleep(_PAUSE)
        self._lock.close()


def check_code() -> None:
    """Raise InputError if no library can be loaded from temporary folders."""
    place = _place()
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        raise InputError(
            f"{place} is mounted noexec, and compiled code is loaded from a temporary folder: set"
            " TMPDIR to a folder on another file system"
        )


def check_space() -> None:
    """Raise InputError if there is no room for code in temporary folders.

    LLVM would end the process.  File systems that do not tell their size have room.
    """
    place = _place()
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if most != resource.RLIM_INFINITY and most < _ROOM:
        raise InputError(
            f"files may have {format_size(most)} at most (ulimit -f), and code takes up to"
            f" {format_size(_ROOM)}"
        )
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    if status.f_blocks and free < _ROOM:
        raise InputError(
            f"{place} has {format_size(free)} left, and code is generated in a temporary folder:"
            f" make room for {format_size(_ROOM)}, or set TMPDIR to another folder"
        )


def _place() -> str:
    """Where temporary folders are made."""
    place = tempfile.gettempdir()
    try:
        place.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"the temporary folder {place!r} has a name that is not UTF-8: set TMPDIR to another"
        ) from None
    return place


def prepare() -> None:
    """Remove what others left, and raise InputError if code cannot be built and loaded there."""
    sweep()
    check_code()
    check_space()


def sweep() -> None:
    """Remove the folders of this user whose process has ended without that."""
    for file in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_OWNED}"):
        with suppress(OSError):  # another sweep was faster, or it is in use
            _remove(file)


def _locked(folder: Path) -> IO[bytes]:
    """Lock a new file in the folder; nobody sees it under its name before it is locked."""
    begun = folder / f"{_OWNED}.part"
    stream = begun.open("xb")
    with suppress(OSError):  # a file system without locks: nobody but its process removes it
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        begun.rename(folder / _OWNED)
    return stream


def _remove(file: Path) -> None:
    """Remove the file's folder.  Raises OSError if somebody has the file locked."""
    folder = file.parent
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return
    with file.open("r+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
