"""`hybridc report`: an artifact as a page to read and to pass on."""

from pathlib import Path

import click

from hybridc.cli._options import BACKEND_PLUGIN, THREADS, VERBOSE
from hybridc.cli._output import clear_progress, progress
from hybridc.compiler.files import check_place


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the page; ARTIFACT's name with .html in the current directory if not set.",
)
@click.option("--no-run", is_flag=True, help="Tell only what the artifact holds; run nothing.")
@THREADS
@BACKEND_PLUGIN
@VERBOSE
def command(
    artifact: Path,
    output: Path | None,
    no_run: bool,
    threads: int | None,
    plugin: tuple[Path, ...],
    verbose: bool,
) -> None:
    """Write an artifact's report as one HTML file.

    The artifact is run, so that each kernel stands there with its time and with its share of what
    this machine can do at most.  The file holds no scripts and loads nothing.

    An artifact is native code: without --no-run, give only those that you trust.
    """
    from hybridc.compiler.artifact import Artifact

    path = output or Path(f"{artifact.stem}.html")
    check_place("--output", path, "report.html")
    loaded = Artifact.load(artifact, plugin)
    from hybridc.compiler.reporting.report_file import write  # what it imports takes seconds

    try:
        write(loaded, path, threads, progress(verbose), run=not no_run)
    finally:
        clear_progress()
    click.echo(path)
