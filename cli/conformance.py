"""`hybridc conformance`: other people's test cases, run through the compiler and counted."""

import click

from hybridc.cli._options import JSON, VERBOSE
from hybridc.cli._output import clear_progress, emit_json, progress

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
@click.option("--jobs", type=click.IntRange(min=1), help="Cases at once; one a core by default.")
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds that a case may take.",
)
@click.option(
    "--memory",
    default=4.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="GiB that a case may take.",
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
    as_json: bool,
    verbose: bool,
) -> int:
    """Run the conformance cases that other packages carry, and count what came of them.

    Each case is compiled with the default pipeline and compared with the outputs that it names:
    pass, fallback (right, with another runtime's help), unsupported (refused with a reason), error,
    wrong.  One that crashes, hangs or takes too much memory is lost alone.  Ctrl-C shows what there
    is.  Leaves with 1 when an answer is wrong.
    """
    from hybridc.compiler.conformance import run, summary
    from hybridc.compiler.conformance.suite import Result, Verdict, named
    from hybridc.compiler.hardware import host

    suite = named(suite, fallback)  # says what is wrong with it before a process is started
    tell, limits = progress(verbose), run.Limits(timeout, int(memory * _GIB))
    results: list[Result] = []
    total, stopped = 0, False
    try:
        with run.Runner(suite, limits, jobs or host.cores()) as runner:
            entries = runner.entries(core, text)
            total = len(entries)
            results.extend(runner.results(entries, tell))
    except KeyboardInterrupt:
        stopped = True
    finally:
        clear_progress()
    found = summary.of(suite, results, total, core)
    if as_json:
        emit_json(found.to_json())
    else:
        click.echo(found.text())
    if stopped:
        return INTERRUPTED
    return 1 if found.counts()[Verdict.WRONG] else 0
