"""Arrays from numpy's files, `.npy` and `.npz`, which may come from a stranger: never unpickled."""

import zipfile
from pathlib import Path

import numpy as np

from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem.files import unreadable
from hybridc.compiler.model import Array


def array(path: Path) -> Array:
    """What an `.npy` file holds.  Raises InputError for anything else, Python objects too."""
    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(unreadable(path, error)) from error
    except Exception as error:  # numpy, tokenize and zipfile raise many kinds for a damaged file
        raise InputError(f"{path} is not a plain array (.npy): {_fault(error)}") from error
    if not isinstance(found, np.ndarray):
        raise InputError(f"{path} is an archive (.npz); give one .npy file for each input")
    return found


def archive(path: Path) -> dict[str, Array]:
    """The arrays of an `.npz` file by name.  Raises InputError for anything else."""
    if path.is_file() and not zipfile.is_zipfile(path):
        more = "; for .npy files give the folder that holds one for each input"
        raise InputError(f"{path} is not an archive of plain arrays (.npz){more}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = dict(archive)
    except OSError as error:
        raise InputError(unreadable(path, error)) from error
    except Exception as error:  # zipfile and numpy raise many kinds for a damaged archive
        raise InputError(
            f"{path} is not an archive of plain arrays (.npz): {_fault(error)}"
        ) from error
    # numpy gives the bytes of what is no .npy file within.
    if strange := [name for name, array in found.items() if not isinstance(array, np.ndarray)]:
        raise InputError(
            f"{path} is not an archive of plain arrays (.npz): {strange[0]!r} is not an array"
        )
    return found


def _fault(error: Exception) -> str:
    """What numpy says, but for its advice to unpickle, which may also be of a damaged file."""
    told = str(error)
    return "it is damaged, or holds Python objects" if "pickle" in told else told
