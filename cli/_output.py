"""Output of the verbs: results to stdout, progress to stderr."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any

import click

Tell = Callable[[str], None]

_PAUSE = 10.0  # seconds between two lines of what is told now and then


def emit_json(data: Any) -> None:
    """Print the one document of a verb that was asked for JSON."""
    click.echo(json.dumps(data, indent=2, allow_nan=False, default=str))


def results_alone() -> AbstractContextManager[object]:
    """Redirect to stderr whatever plug-ins, validation functions and exporters print."""
    return contextlib.redirect_stdout(sys.stderr)


@contextlib.contextmanager
def progress(
    verbose: bool = False, quiet: bool = False, *, now_and_then: bool = False
) -> Generator[Tell]:
    """Give a function that reports each step.

    With `verbose`, each step is a line on stderr. Otherwise a terminal shows the current step on a
    single line, which is cleared at the end, and a file or pipe gets nothing, or a line
    `now_and_then`. With `quiet`, nobody gets anything.
    """
    if quiet:
        yield lambda _: None
    elif verbose:
        yield _line
    elif not sys.stderr.isatty():
        yield _sometimes() if now_and_then else lambda _: None
    else:
        try:
            yield _overwrite
        finally:
            _overwrite("")


def _line(step: str) -> None:
    click.echo(step, err=True)


def _sometimes() -> Tell:
    """Tell a step once in so many seconds: none of what is short, or is refused at once."""
    told = [time.monotonic()]

    def tell(step: str) -> None:
        now = time.monotonic()
        if now - told[-1] >= _PAUSE:
            told[:] = [now]
            _line(step)

    return tell


def _overwrite(step: str) -> None:
    click.echo(f"\r\x1b[K{step[:79]}", nl=False, err=True)
