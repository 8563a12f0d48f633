"""`hybridc log train`: teach the cost model what the tuning log knows."""

from pathlib import Path
from typing import Any

import click

from hybridc.cli._options import (
    DTYPE,
    JSON,
    LOG,
    MODEL_PATH,
    PIPELINE,
    PLUGIN,
    SHAPE,
    TARGET,
    THREADS,
    VERBOSE,
    glance,
    shapes_of,
)
from hybridc.cli._output import clear_progress, emit_json, progress


@click.command("train")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=MODEL_PATH)
@LOG
@SHAPE
@TARGET
@THREADS
@DTYPE
@PIPELINE
@PLUGIN
@JSON
@VERBOSE
def train(
    models: tuple[Path, ...],
    shape: tuple[str, ...],
    plugin: tuple[Path, ...],
    as_json: bool,
    verbose: bool,
    **plain: Any,
) -> None:
    """Teach the cost model what the log knows of MODELs.

    What it becomes guides every later tuning, if it ranks kernels that were held out no worse.
    """
    from hybridc.compiler import driver
    from hybridc.compiler.configuration.plans import Options
    from hybridc.compiler.hardware import host
    from hybridc.compiler.log import access
    from hybridc.compiler.tuning import cost_model, training

    host.check_threads(plain["threads"])
    cost_model.require_xgboost()
    shapes = shapes_of(models, shape)
    glance(models)
    options = Options(**plain, plugins=plugin, progress=progress(verbose))
    try:
        with access.open_log(options.log, readonly=True, plugins=plugin) as opened:
            unscheduled = (driver.unscheduled(model, options, shapes) for model in models)
            found = training.train(opened, unscheduled, options.progress, plugin)
    finally:
        clear_progress()
    emit_json(found.to_json()) if as_json else click.echo(str(found))
