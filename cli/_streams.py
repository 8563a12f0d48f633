"""Standard streams as a command needs them, however it was started."""

import io
import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def prepare() -> None:
    """Let closed streams lead to nowhere, and text be shown in whatever encoding there is.

    The first file that is opened would take the number of a closed stream, and what is written to
    that.  A character that a terminal's encoding lacks becomes a question mark; so does what is no
    character in the name of a file.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            _open(number)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _open(number: int) -> None:
    try:
        os.fstat(number)  # something else has it already
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
