"""Results go to stdout, progress goes to stderr; JSON is one document."""

import contextlib
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import click


def emit_json(data: Any) -> None:
    """Print the one JSON document of a verb that was asked for JSON."""
    click.echo(json.dumps(data, indent=2, allow_nan=False, default=str))


def results_alone() -> AbstractContextManager[object]:
    """Send to stderr what others print meanwhile: plug-ins, validation functions, exporters."""
    return contextlib.redirect_stdout(sys.stderr)


def progress(verbose: bool = False) -> Callable[[str], None]:
    """Make the function that tells what is going on.

    With `verbose` each step is a line on stderr; otherwise a terminal shows the current step in
    one line that is overwritten, and anything else shows nothing.
    """
    if verbose:
        return lambda step: click.echo(step, err=True)
    if sys.stderr.isatty():
        return _overwrite
    return lambda _: None


def _overwrite(step: str) -> None:
    click.echo(f"\r\x1b[K{step[:79]}", nl=False, err=True)


def clear_progress() -> None:
    """Remove the line that `progress` left on a terminal."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
