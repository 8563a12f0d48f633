"""`hybridc report`: write an artifact's report."""

from pathlib import Path

import click

from hybridc.cli._options import BACKEND_PLUGIN, JSON, THREADS, VERBOSE
from hybridc.cli._output import emit_json, progress
from hybridc.compiler.filesystem.files import check_place


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the report: HTML if the name ends in .html or .htm, else plain text;"
    " default: ARTIFACT's name with .html, in the current directory.",
)
@click.option("--no-run", is_flag=True, help="Run nothing; report only what the artifact contains.")
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
    """Write an artifact's report as HTML or plain text.

    The artifact is run, to report each kernel's time, and its share of what this machine can do at
    most.  The page has no scripts and loads nothing.  --json also prints the data.

    An artifact is native code: without --no-run, use only artifacts that you trust.
    """
    from hybridc.compiler.artifacts.artifact import Artifact

    path = output or Path(f"{artifact.stem}.html")
    check_place("--output", path, "report.html", {"ARTIFACT": artifact})
    loaded = Artifact.load(artifact, plugin)
    from hybridc.compiler.reporting.report_file import write  # what it imports takes seconds

    with progress(verbose) as tell:
        measured = write(loaded, path, threads, tell, run=not no_run)
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
