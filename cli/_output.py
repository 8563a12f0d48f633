"""Output of the verbs: results to stdout, progress to stderr."""

import contextlib
import json
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any

import click


def emit_json(data: Any) -> None:
    """Print the one document of a verb that was asked for JSON."""
    click.echo(json.dumps(data, indent=2, allow_nan=False, default=str))


def results_alone() -> AbstractContextManager[object]:
    """Redirect to stderr whatever plug-ins, validation functions and exporters print."""
    return contextlib.redirect_stdout(sys.stderr)


@contextlib.contextmanager
def progress(verbose: bool = False) -> Generator[Callable[[str], None]]:
    """Give a function that reports each step.

    With `verbose`, each step is a line on stderr. Otherwise a terminal shows the current step on a
    single line, which is cleared at the end, and nothing is written to a file or pipe.
    """
    if verbose:
        yield lambda step: click.echo(step, err=True)
    elif not sys.stderr.isatty():
        yield lambda _: None
    else:
        try:
            yield _overwrite
        finally:
            _overwrite("")


def _overwrite(step: str) -> None:
    click.echo(f"\r\x1b[K{step[:79]}", nl=False, err=True)
