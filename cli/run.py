"""`hybridc run`: call an artifact once, on .npy files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hybridc.cli._options import BACKEND_PLUGIN, THREADS

if TYPE_CHECKING:
    from hybridc.compiler.model import Array

_LONGEST = 200  # of a file's 255 characters; numbers and endings follow


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FILE.npy",
    help="The array for an input; repeat for each input.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Where to write the outputs; default: the current directory.",
)
@THREADS
@BACKEND_PLUGIN
def command(
    artifact: Path,
    inputs: tuple[str, ...],
    output_dir: Path,
    threads: int | None,
    plugin: tuple[Path, ...],
) -> None:
    """Run an artifact on .npy files.

    Each output is written to NAME.npy in --output-dir.

    An artifact is native code: run only artifacts that you trust.
    """
    from hybridc.compiler.artifacts.artifact import Artifact

    loaded = Artifact.load(artifact, plugin)
    feed = _feed(inputs)
    _check_folder(output_dir)
    from hybridc.compiler.model import OpaqueSpec
    from hybridc.compiler.runtime.session import InferenceSession  # what it imports takes seconds

    session = InferenceSession(loaded, threads)
    for spec in session.artifact.inputs:
        if spec.name in feed and not isinstance(spec, OpaqueSpec):
            feed[spec.name] = _named(feed[spec.name], spec.dtype)
    names = [output.name for output in session.get_outputs()]
    paths = _paths(names, output_dir)
    results = session.run(None, feed)
    for path, result in zip(paths, results, strict=True):
        for file, array in _files(path, result):
            _write(file, array)
            click.echo(file)


def _feed(texts: tuple[str, ...]) -> "dict[str, Array]":
    from hybridc.compiler.errors import InputError

    feed: dict[str, Array] = {}
    for name, array in map(_read, texts):
        if name in feed:
            raise InputError(f"--input {name} is given twice")
        feed[name] = array
    return feed


def _check_folder(folder: Path) -> None:
    from hybridc.compiler.errors import InputError

    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output-dir {folder}: not a folder")


def _read(text: str) -> "tuple[str, Array]":
    """Read `NAME=FILE.npy`; arrays of Python objects are refused, since those are pickles."""
    from hybridc.compiler.errors import InputError
    from hybridc.compiler.filesystem import numpy_files

    name, equals, file = text.partition("=")
    if not equals or not file:
        raise InputError(f"--input {text!r} is not of the form NAME=FILE.npy")
    return name, numpy_files.array(Path(file))


def _named(array: "Array", dtype: str) -> "Array":
    """Restore the type of bfloat16 and the like, which .npy files do not keep, and byte order."""
    import numpy as np

    wanted = np.dtype(dtype)
    if array.dtype == wanted.newbyteorder():
        return array.astype(wanted)
    if array.dtype.kind == "V" and array.dtype.itemsize == wanted.itemsize:
        return array.view(wanted)
    return array


def _paths(names: list[str], folder: Path) -> list[Path]:
    """A file for each output; names of tensors can contain anything, so others are replaced."""
    stems: list[str] = []
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".")[:_LONGEST] or "output"
        stems.append(f"{stem}_{len(stems)}" if stem in stems else stem)
    return [folder / f"{stem}.npy" for stem in stems]


def _files(path: Path, result: Any) -> "Iterator[tuple[Path, Array]]":
    """The files of an output: strings are written as text, a sequence as one file per element."""
    import numpy as np

    from hybridc.compiler.errors import InputError

    if isinstance(result, np.ndarray):
        yield path, result.astype(str) if result.dtype == object else result
    elif isinstance(result, list) and all(isinstance(each, np.ndarray) for each in result):
        for index, array in enumerate(result):
            yield from _files(path.with_suffix(f".{index}.npy"), array)
    else:
        raise InputError(f"output {path.stem!r} is a {type(result).__name__}, not an array")


def _write(path: Path, array: "Array") -> None:
    import numpy as np

    from hybridc.compiler.filesystem.files import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        np.save(stream, array, allow_pickle=False)
