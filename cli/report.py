"""`hybridc report`: an artifact as a page to read and to pass on."""

from pathlib import Path

import click

from hybridc.cli._options import BACKEND_PLUGIN, JSON, THREADS, VERBOSE
from hybridc.cli._output import clear_progress, emit_json, progress
from hybridc.compiler.files import check_place


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the report: a page if it ends in .html (or .htm), else plain text;"
    " ARTIFACT's name with .html in the current directory if not set.",
)
@click.option("--no-run", is_flag=True, help="Tell only what the artifact holds; run nothing.")
@THREADS
@BACKEND_PLUGIN
@JSON
@VERBOSE
def command(
    artifact: Path,
    output: Path | None,
    no_run: bool,
    threads: int | None,
    plugin: tuple[Path, ...],
    as_json: bool,
    verbose: bool,
) -> None:
    """Write an artifact's report as HTML or as plain text.

    The artifact is run, so that each kernel stands there with its time and with its share of what
    this machine can do at most.  The page holds no scripts and loads nothing.  With --json the same
    is told on stdout as data.

    An artifact is native code: without --no-run, give only those that you trust.
    """
    from hybridc.compiler.artifact import Artifact

    path = output or Path(f"{artifact.stem}.html")
    check_place("--output", path, "report.html")
    loaded = Artifact.load(artifact, plugin)
    from hybridc.compiler.reporting.report_file import write  # what it imports takes seconds

    try:
        measured = write(loaded, path, threads, progress(verbose), run=not no_run)
    finally:
        clear_progress()
    if not as_json:
        click.echo(path)
        return
    emit_json(
        {
            "page": str(path),
            "measured": measured.to_json() if measured else None,
            "certificate": dict(loaded.certificate),
            "report": dict(loaded.report),
        }
    )
