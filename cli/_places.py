"""Where a verb writes: to places that can be written to, and never over a file that it reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem.files import check_place, is_same

# What a file is called in the message, where a folder is named.
_EXAMPLES = {"-o": "model.hyb", "--report": "report.html", "--trace": "trace.json"}


# Files by the name of their option; some options are given more than once.
Files = Mapping[str, Path | Sequence[Path] | None]


def check_apart(written: Mapping[str, Path | None], read: Files) -> None:
    """Raise InputError where an output cannot be written, or is an input or another output."""
    taken = [(name, file) for name, files in read.items() for file in _each(files)]
    for option, place in written.items():
        if place is None:
            continue
        check_place(option, place, _EXAMPLES[option])
        for name, other in taken:
            if is_same(place, other):
                raise InputError(f"{option} {place}: this is {name}; name another file")
        taken.append((option, place))


def _each(files: Path | Sequence[Path] | None) -> Sequence[Path]:
    if files is None:
        return ()
    return (files,) if isinstance(files, Path) else files
