"""`hybridc opt`: run a pipeline on IR text."""

from pathlib import Path
from typing import IO

import click

from hybridc.cli._options import PLUGIN, TARGET, THREADS
from hybridc.compiler.filesystem.files import check_place

_LONGEST = 2**30  # characters of a module: of a device there is no end


@click.command()
@click.argument("source", type=click.File(encoding="utf-8"))
@click.option(
    "--pipeline", "text", required=True, help="The passes to run, as `hybridc passes` names them."
)
@TARGET
@THREADS
@PLUGIN
@click.option(
    "--check", is_flag=True, help="Compare the results before and after, on random inputs."
)
@click.option("--rtol", default=1e-3, show_default=True, help="Relative tolerance of --check.")
@click.option("--atol", default=1e-4, show_default=True, help="Absolute tolerance of --check.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the IR; default: stdout.",
)
def command(
    source: IO[str],
    text: str,
    target: str,
    threads: int | None,
    plugin: tuple[Path, ...],
    check: bool,
    rtol: float,
    atol: float,
    output: Path | None,
) -> None:
    """Run a pipeline on IR text.

    SOURCE is a file with a Relax module in TVMScript (@I.ir_module), or - for stdin.

    IR text is code: TVM evaluates the Python expressions in it.  Use only text that you trust.
    """
    if output is not None:
        check_place("-o", output, "ir.py")
    from hybridc.compiler.ir import script

    if check:
        _require_here(target)
    module = script.read(_text(source), source.name)
    optimised = script.optimise(module, text, device=target, threads=threads, plugins=plugin)
    if check:
        click.echo(script.check(module, optimised, rtol, atol), err=True)
    if output is None:
        click.echo(script.text_of(optimised))
    else:
        script.write(optimised, output)


def _text(source: IO[str]) -> str:
    from hybridc.compiler.errors import InputError

    try:
        text = source.read(_LONGEST)
    except UnicodeDecodeError:
        raise InputError(f"{source.name} is not a Relax module in TVMScript: no text") from None
    if len(text) == _LONGEST:
        raise InputError(f"{source.name} is too long for a Relax module in TVMScript")
    return text


def _require_here(text: str) -> None:
    """Raise InputError if this CPU cannot run code for the target."""
    from hybridc.compiler.errors import InputError
    from hybridc.compiler.hardware import host
    from hybridc.compiler.target import CPU, kind_of, parse

    if kind_of(text) != CPU:
        raise InputError(f"--check runs kernels on this CPU, and cannot run those for {text}")
    if lacking := sorted(parse(text).features - host.cpu_features()):
        raise InputError(
            f"--check runs kernels on this CPU, which lacks {', '.join(lacking)}, needed for {text}"
        )
