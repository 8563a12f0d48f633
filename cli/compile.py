"""`hybridc compile`: compile a model file into an artifact."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hybridc.cli import _steering
from hybridc.cli._contract import contract_options
from hybridc.cli._options import (
    ATOL,
    JSON,
    LOG,
    MONITOR,
    MONITOR_INTERVAL,
    PLUGIN,
    RTOL,
    SEED,
    SHAPE,
    TARGET,
    THREADS,
    TRACE,
    UNTRUSTED,
    VERBOSE,
    Shapes,
    glance,
    option,
    shapes_of,
)
from hybridc.cli._output import emit_json, progress, results_alone
from hybridc.cli._places import check_apart
from hybridc.cli._sections import COMPILE, Sectioned
from hybridc.cli._steering import steering_options
from hybridc.compiler.errors import ContractError
from hybridc.compiler.orchestration import precisions

if TYPE_CHECKING:
    from hybridc.compiler.configuration.plans import Options
    from hybridc.compiler.orchestration.attempt import Outcome


@click.command(cls=Sectioned, sections=COMPILE, once=COMPILE["Contract"])
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the artifact; default: MODEL's name with .hyb, in the current directory.",
)
@TARGET
@THREADS
@option(
    "--dtype",
    type=click.Choice([*precisions.names(), *precisions.PAIRS]),
    metavar="PRECISION",
    default="auto",
    show_default=True,
)
@SHAPE
@contract_options
@click.option(
    "--keep-best", is_flag=True, help="Write the artifact even if it breaks the contract."
)
@option("--calibration", type=click.Path(path_type=Path), metavar="DATA")
@option("--validation", type=click.Path(path_type=Path), metavar="DATA")
@SEED
@option("--exact", is_flag=True)
@option("--pipeline", metavar="TEXT")
@PLUGIN
@option(
    "--verify",
    type=click.Choice(["each", "end", "off"]),
    metavar="WHEN",
    default="end",
    show_default=True,
)
@RTOL
@ATOL
@click.option(
    "--dump-ir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the IR before and after each pass that changed it.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Where to write a report: a page (for which the artifact is run) if it ends in .html (or"
    " .htm), else plain text.",
)
@option("--trials", type=click.IntRange(min=1), metavar="N")
@steering_options
@LOG
@option(
    "--near",
    type=click.Choice(["never", "tools", "any"]),
    metavar="WHICH",
    default="tools",
    show_default=True,
)
@option("--frozen", is_flag=True)
@option("--lock", type=click.Path(path_type=Path), metavar="FILE")
@UNTRUSTED
@MONITOR
@MONITOR_INTERVAL
@TRACE
@option("--fallback/--no-fallback", default=True)
@option("--backends", metavar="NAME,...", default="tvm", show_default=True)
@JSON
@VERBOSE
def command(
    model: Path,
    output: Path | None,
    shape: tuple[str, ...],
    keep_best: bool,
    calibration: Path | None,
    validation: Path | None,
    dump_ir: Path | None,
    plugin: tuple[Path, ...],
    report: Path | None,
    untrusted: bool,
    as_json: bool,
    verbose: bool,
    **plain: Any,
) -> None:
    """Compile a model into a verified artifact.

    MODEL is an .onnx or .pt2 file.  The artifact's answers are compared with those of ONNX Runtime
    or PyTorch, and whatever the contract limits is measured.  Faster schedules are taken from the
    tuning log.
    """
    start = time.perf_counter()  # before TVM is imported, since the user waits for that too
    shapes = shapes_of([model], shape)
    path = _place(model, output, plugin)
    from hybridc.compiler.assurance import calibration as data
    from hybridc.compiler.configuration import presets
    from hybridc.compiler.configuration.config import HybridConfig

    with results_alone(), progress(verbose, now_and_then=plain["trials"] is not None) as tell:
        config = HybridConfig(**_steering.fields({**plain, "plugin": plugin}))
        options = presets.options(
            config,
            tell,
            dump_ir=dump_ir,
            calibration=data.read(calibration) if calibration else None,
            validation=data.read(validation) if validation else None,
        )
        _check(options, model, shapes, untrusted)
        from hybridc.compiler import driver  # what it imports takes seconds

        outcome = driver.compile_source(model, options, shapes)
        _write_report(outcome, report, options)
    _save(outcome, path, keep_best, as_json)
    if as_json:
        emit_json(_data(outcome, path))
    else:
        seconds = time.perf_counter() - start
        click.echo(_summary(outcome, path, options.contract.told(outcome.measured), seconds))
    if outcome.broken:
        raise ContractError(f"{'; '.join(outcome.broken)}; {path} is kept as the best there is")


def _place(model: Path, output: Path | None, plugins: tuple[Path, ...]) -> Path:
    """Where the artifact goes, which may replace the one of its lock.

    Raises InputError if it, or what is written beside it, cannot be, or would take the place of
    what is read.
    """
    path = output or Path(f"{model.stem}.hyb")
    context = click.get_current_context()
    given = context.params
    read = {
        "MODEL": model,
        "--calibration": given["calibration"],
        "--validation": given["validation"],
        "--plugin": plugins,
        "--config": context.meta.get(_steering.CONFIG),
    }
    check_apart({"-o": path}, read)
    beside = {"--report": given["report"], "--trace": given["trace"]}
    check_apart(beside, {**read, "--lock": given["lock"], "-o": path})
    return path


def _check(options: "Options", model: Path, shapes: Shapes, untrusted: bool) -> None:
    """Raise InputError or ModelError for bad options or a bad file, before compiling anything."""
    from hybridc.compiler.configuration import plans
    from hybridc.compiler.orchestration import cascade

    plans.check(options)
    cascade.check(options)
    glance([model])
    if untrusted:
        from hybridc.compiler.processes.untrusted import examine

        examine(model, shapes)


def _save(outcome: "Outcome", path: Path, keep_best: bool, as_json: bool) -> None:
    """Write the artifact.  Raises ContractError if the contract is broken, unless `keep_best`."""
    if outcome.broken and not keep_best:
        if as_json:
            emit_json(_data(outcome, None))
        raise ContractError("; ".join(outcome.broken))
    outcome.artifact.save(path)


def _write_report(outcome: "Outcome", path: Path | None, options: "Options") -> None:
    from hybridc.compiler.filesystem.files import replacing
    from hybridc.compiler.reporting import report_file

    if path is None:
        return
    if report_file.is_page(path):
        report = outcome.report
        report_file.write(
            outcome.artifact,
            path,
            options.threads,
            options.progress,
            stages=report.stages,
            monitored=report.monitored,
            left=outcome.left,
        )
        return
    with replacing(path) as stream:
        stream.write(f"{outcome.report.text()}\n".encode())


def _data(outcome: "Outcome", path: Path | None) -> dict[str, Any]:
    """The JSON document; `path` is None if the contract is broken and nothing was written."""
    return {
        "artifact": None if path is None else str(path),
        "bytes": None if path is None else path.stat().st_size,
        "broken": list(outcome.broken),
        "certificate": outcome.artifact.certificate,
        **outcome.report.to_json(),
    }


def _summary(outcome: "Outcome", path: Path, limits: str, seconds: float) -> str:
    """The summary for the terminal: kernels, agreement, limits, and the time it all took."""
    from hybridc.compiler import dims
    from hybridc.compiler.text.units import format_size

    where = f"{path} ({format_size(path.stat().st_size)}), compiled in {seconds:.1f} s"
    sizes = dims.certified(outcome.artifact.certificate)
    promised = f"contract: {limits}" if limits else ""
    return "\n".join(filter(None, [outcome.report.summary(), sizes, promised, where]))
