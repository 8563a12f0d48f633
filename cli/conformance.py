"""`hybridc conformance`: run the test cases of ONNX and torch, and count the verdicts."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hybridc.cli._interrupts import INTERRUPTED
from hybridc.cli._options import JSON, VERBOSE
from hybridc.cli._output import emit_json, progress

if TYPE_CHECKING:
    from hybridc.compiler.conformance.summary import Summary

_GIB = 2**30


@click.command()
@click.option(
    "--suite",
    default="onnx-node",
    show_default=True,
    help="The cases to run; 'onnx-node{engine=ort}' runs them by ONNX Runtime.",
)
@click.option(
    "--filter", "text", default="", metavar="TEXT", help="Only cases with this in their name."
)
@click.option("--core", is_flag=True, help="Only the suite's core: common types, plain operators.")
@click.option(
    "--fallback/--no-fallback",
    default=True,
    help="Let ONNX Runtime compute operators that cannot be compiled, which counts as fallback"
    " (default), or refuse them.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of cases at once; default: one per core.",
)
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Time limit of a case.",
)
@click.option(
    "--memory",
    default=4.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    metavar="GIB",
    help="Memory limit of a case.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append each result to this file, and run only the cases that it lacks.",
)
@click.option(
    "--again", is_flag=True, help="With --resume, also rerun the cases that did not pass."
)
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

    The cases ship with those packages.  Each is compiled with the default pipeline and compared
    with its expected outputs; the verdict is pass, fallback (right, with another runtime's help),
    unsupported (refused with a reason), error, or wrong.  A case that crashes, hangs or takes too
    much memory does not stop the others.  Ctrl-C prints the results so far.  Exits with 1 if any
    answer is wrong.
    """
    from hybridc.compiler.conformance import run, summary
    from hybridc.compiler.conformance.record import Record
    from hybridc.compiler.conformance.suite import Verdict, named
    from hybridc.compiler.errors import InputError
    from hybridc.compiler.hardware import host
    from hybridc.compiler.processes.fork import Limits

    if again and resume is None:
        raise InputError("--again reruns the cases in the file of --resume, which is missing")
    suite = named(suite, fallback)  # fails early, before a process is started
    kept = Record(resume, suite, again)
    limits = Limits(timeout, int(memory * _GIB))
    with progress(verbose) as tell:
        runner = run.Runner(suite, limits, jobs or host.cores(), core, text)
        entries, stopped = run.fill(kept, runner, tell)
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
