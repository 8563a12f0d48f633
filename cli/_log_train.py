"""`hybridc log train`: train the cost model on the tuning log."""

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
from hybridc.cli._output import emit_json, progress


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
    """Train the cost model on the log's records of MODELs.

    The trained model guides all later tuning if it ranks held-out kernels at least as well as
    before.
    """
    from hybridc.compiler import driver
    from hybridc.compiler.configuration.plans import Options
    from hybridc.compiler.hardware import host
    from hybridc.compiler.log import access
    from hybridc.compiler.tuning.prediction import cost_model, training

    host.check_threads(plain["threads"])
    cost_model.require_xgboost()
    shapes = shapes_of(models, shape)
    glance(models)
    with (
        progress(verbose) as tell,
        access.open_log(plain["log"], readonly=True, plugins=plugin) as opened,
    ):
        options = Options(**plain, plugins=plugin, progress=tell)
        unscheduled = (driver.unscheduled(model, options, shapes) for model in models)
        found = training.train(opened, unscheduled, tell, plugin)
    emit_json(found.to_json()) if as_json else click.echo(str(found))
