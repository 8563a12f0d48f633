"""`hybridc reduce`: reduce a model to the smallest that still fails."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hybridc.cli._options import JSON, VERBOSE
from hybridc.cli._output import emit_json, progress
from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem import scratch
from hybridc.compiler.filesystem.files import check_place
from hybridc.compiler.text.units import parse_duration


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--fails",
    "command_line",
    required=True,
    metavar="COMMAND",
    help="A command that fails (exit code other than 0) on a model with the fault; the model's path"
    " replaces {}, or is appended.",
)
@click.option("--match", metavar="TEXT", help="Count a failure only if its output contains this.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the smallest model; default: MODEL.reduced.onnx beside MODEL.",
)
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Time limit of a run; one that exceeds it does not count as a failure.",
)
@click.option(
    "--budget", metavar="10min", help="Stop after this time, with the smallest model so far."
)
@click.option(
    "--steps",
    default=2000,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop after this many runs.",
)
@JSON
@VERBOSE
def command(
    model: Path,
    command_line: str,
    match: str | None,
    output: Path | None,
    timeout: float,
    budget: str | None,
    steps: int,
    as_json: bool,
    verbose: bool,
) -> None:
    """Reduce an ONNX model to the smallest that still fails.

    Removes nodes, in ever smaller groups, then shrinks sizes; every model that the command sees is
    valid.  Ctrl-C keeps the smallest so far.
    """
    words = _words(command_line)
    seconds = float("inf") if budget is None else parse_duration(budget)
    _require_onnx(model)
    path = output or model.with_name(f"{model.stem}.reduced.onnx")
    check_place("-o", path, "model.reduced.onnx", {"MODEL": model})
    from hybridc.compiler.debugging import reduction

    proto = reduction.load(model)
    with scratch.Folder() as folder, progress(verbose) as tell:
        fails = _runner(words, Path(folder) / "model.onnx", timeout, match)
        limits = reduction.Budget(steps, seconds)
        found = reduction.Reduction(proto, fails, tell, limits)
        try:
            found.run()
        except KeyboardInterrupt:
            if not limits.used:
                raise
    _deliver(found.best, path, len(proto.graph.node), limits.used, as_json)


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--fails {text!r} is not a command: {error}") from None
    if not words:
        raise InputError("--fails needs a command, such as 'hybridc compile {}'")
    return words if any("{}" in word for word in words) else [*words, "{}"]


def _require_onnx(model: Path) -> None:
    from hybridc.compiler import frontend

    if not frontend.is_onnx(model):
        raise InputError(f"{model}: only .onnx models can be reduced")


def _runner(words: list[str], path: Path, timeout: float, match: str | None) -> Callable[..., bool]:
    """The test of whether a model fails: it runs the command on a file."""
    call = [word.replace("{}", str(path)) for word in words]
    first = [True]  # the first run is on the whole model, which must fail as described

    def fails(proto: Any) -> bool:
        path.write_bytes(proto.SerializeToString())
        try:
            done = subprocess.run(
                call,
                check=False,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except subprocess.TimeoutExpired:
            return False
        except OSError as error:
            raise InputError(f"--fails: cannot run {call[0]!r}: {error.strerror}") from None
        if done.returncode == 0:
            return False
        matched = match is None or match.encode() in done.stdout
        if first and not matched:
            lines = done.stdout.decode(errors="replace").strip().splitlines()
            raise InputError(
                f"the command fails on the model, but its output lacks {match!r};"
                f" its last line is {lines[-1] if lines else ''!r:.200}"
            )
        first.clear()
        return matched

    return fails


def _deliver(proto: Any, path: Path, before: int, runs: int, as_json: bool) -> None:
    from hybridc.compiler.filesystem.files import replacing

    with replacing(path) as stream:
        stream.write(proto.SerializeToString())
    operators = [node.op_type for node in proto.graph.node]
    if as_json:
        emit_json({"model": str(path), "nodes": operators, "before": before, "runs": runs})
        return
    shown = ", ".join(operators[:10]) + (", …" if len(operators) > 10 else "")
    click.echo(f"{path}: {len(operators)} of {before} nodes ({shown}), {runs} runs")
