"""Write files whole or not at all."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import BinaryIO

from hybridc.compiler.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """Open a new file beside `path` for reading and writing; it takes the name when all is well.

    Whatever interrupts the writer, `path` holds the old content or the new one, both whole, and
    the partial file is removed.  The new file gets the permissions that the umask grants.
    Raises OSError, with the name of the file, where the directory, the disk or a limit refuses, and
    FileExistsError if `path` is not a regular file.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} exists and is not a regular file")
    partial = path.with_name(f".hybridc-{secrets.token_hex(8)}.part")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    handle = os.open(partial, flags, 0o666)
    try:
        with os.fdopen(handle, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write that fails does not know it
        raise
    _sync_directory(path.parent)


def check_place(option: str, path: Path, example: str, others: Mapping[str, Path] = {}) -> None:
    """Raise InputError if no file can be written to `path`, before anything takes time.

    Nor may it be one of the `others`, which it would overwrite.
    """
    if path.is_dir():
        raise InputError(f"{option} {path}: this is a folder; name a file, such as {example}")
    if path.exists() and not path.is_file():
        raise InputError(f"{option} {path}: not a regular file")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}")
    for name, other in others.items():
        if is_same(path, other):
            raise InputError(f"{option} {path}: this is {name}; name another file")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"{option} {path}: cannot write there: {reason(error)}") from None


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths name one file, which need not exist yet."""
    return one == other or (one.exists() and other.exists() and one.samefile(other))


def _sync_directory(directory: Path) -> None:
    """Make the rename itself survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unreadable(path: Path | str, error: OSError) -> str:
    """What to say where a file that a caller named cannot be read: `a.hyb: no such file`."""
    if isinstance(error, FileNotFoundError):
        return f"{path}: no such file"
    return f"cannot read {path}: {reason(error)}"


def reason(error: OSError) -> str:
    """Why the system refused, in its own words: `No space left on device`."""
    return error.strerror or str(error)
