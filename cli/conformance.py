"""`hybridc conformance`: other people's test cases, run through the compiler and counted."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hybridc.cli._options import JSON, VERBOSE
from hybridc.cli._output import clear_progress, emit_json, progress

if TYPE_CHECKING:
    from hybridc.compiler.conformance.summary import Summary

INTERRUPTED = 130
_GIB = 2**30


@click.command()
@click.option(
    "--suite",
    default="onnx-node",
    show_default=True,
    help="Whose cases to run; 'onnx-node{engine=ort}' runs them by ONNX Runtime.",
)
@click.option("--filter", "text", default="", metavar="TEXT", help="Only cases named so.")
@click.option("--core", is_flag=True, help="Only the suite's core: common types, plain operators.")
@click.option(
    "--fallback/--no-fallback",
    default=True,
    help="Hand operators that cannot be compiled to ONNX Runtime, which counts as fallback (the"
    " usual), or refuse them.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Cases at once; one a core by default.",
)
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="How long a case may take.",
)
@click.option(
    "--memory",
    default=4.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    metavar="GIB",
    help="How much memory a case may take.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Add each result to this file as it comes, and run only the cases that it lacks.",
)
@click.option("--again", is_flag=True, help="Run again what did not pass in the file of --resume.")
@JSON
@VERBOSE
def command(
    suite: str,
    text: str,
    core: bool,
    fallback: bool,
    jobs: int | None,
    timeout: float,
    memory: float,
    resume: Path | None,
    again: bool,
    as_json: bool,
    verbose: bool,
) -> int:
    """Run the conformance cases of ONNX and torch.

    They are those that the packages carry.  Each case is compiled with the default pipeline and
    compared with the outputs that it names: pass, fallback (right, with another runtime's help),
    unsupported (refused with a reason), error, wrong.  One that crashes, hangs or takes too much
    memory is lost alone.  Ctrl-C shows what there is.  Leaves with 1 when an answer is wrong.
    """
    from hybridc.compiler.conformance import run, summary
    from hybridc.compiler.conformance.record import Record
    from hybridc.compiler.conformance.suite import Verdict, named
    from hybridc.compiler.errors import InputError
    from hybridc.compiler.fork import Limits
    from hybridc.compiler.hardware import host

    if again and resume is None:
        raise InputError("--again runs cases of the file of --resume, which is missing")
    suite = named(suite, fallback)  # says what is wrong with it before a process is started
    kept = Record(resume, suite, again)
    tell, limits = progress(verbose), Limits(timeout, int(memory * _GIB))
    try:
        runner = run.Runner(suite, limits, jobs or host.cores(), core, text)
        entries, stopped = run.fill(kept, runner, tell)
    finally:
        clear_progress()
    results = [kept.results[entry.name] for entry in entries if entry.name in kept.results]
    found = summary.of(suite, results, len(entries), core)
    _show(found, as_json)
    if stopped:
        return INTERRUPTED
    return 1 if found.counts()[Verdict.WRONG] else 0


def _show(found: "Summary", as_json: bool) -> None:
    if as_json:
        emit_json(found.to_json())
    else:
        click.echo(found.text())
