"""`hybridc tune`: search for faster schedules of a model's kernels."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from hybridc.cli._interrupts import INTERRUPTED
from hybridc.cli._options import (
    BUDGET,
    DTYPE,
    JSON,
    LOG,
    MONITOR,
    MONITOR_INTERVAL,
    PIPELINE,
    PLUGIN,
    QUIET,
    SHAPE,
    TARGET,
    THREADS,
    TRACE,
    VERBOSE,
    Shapes,
    glance,
    shapes_of,
)
from hybridc.cli._output import emit_json, progress
from hybridc.cli._places import check_apart

if TYPE_CHECKING:
    from hybridc.compiler.configuration.plans import Options
    from hybridc.compiler.tuning.options import Tuning
    from hybridc.compiler.tuning.session import TuningOutcome


@click.command()
@click.argument("models", nargs=-1, metavar="MODEL...", type=click.Path(path_type=Path))
@click.option(
    "--simulate",
    metavar="LOG",
    help="Measure nothing; compare strategies on a recorded sweep (.npz) or a tuning log.",
)
@click.option(
    "--trials",
    default=32,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Points to measure per kernel on average, besides its default; points that the log already"
    " has count.",
)
@BUDGET
@click.option(
    "--strategy",
    metavar="NAME",
    default="evolutionary",
    show_default=True,
    help="The search strategy, with its options: evolutionary{population=64}.",
)
@LOG
@click.option("--seed", type=int, metavar="N", help="Seed of the strategy; default: 0.")
@TARGET
@THREADS
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of processes that build candidates; default: by the cores.",
)
@click.option(
    "--caches",
    type=click.Choice(["auto", "warm", "cold"]),
    metavar="STATE",
    default="auto",
    show_default=True,
    help="Measure with the weights in cache (warm) or in memory (cold); auto: as they are when the"
    " model runs.",
)
@DTYPE
@SHAPE
@PIPELINE
@PLUGIN
@click.option("--explain", is_flag=True, help="Report how well each kernel's times were predicted.")
@MONITOR
@MONITOR_INTERVAL
@TRACE
@JSON
@QUIET
@VERBOSE
def command(
    models: tuple[Path, ...],
    simulate: str | None,
    trials: int,
    budget: str | None,
    strategy: str,
    seed: int | None,
    workers: int | None,
    caches: Literal["auto", "warm", "cold"],
    shape: tuple[str, ...],
    plugin: tuple[Path, ...],
    explain: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **plain: Any,
) -> int:
    """Search for faster schedules of models' kernels.

    Every measurement goes into the tuning log, where `hybridc compile` finds the best.  Ctrl-C
    keeps the measurements, and the same command continues from there.  A candidate is timed only
    if its answer agrees with that of the unscheduled kernel.
    """
    from hybridc.compiler.configuration.plans import Options
    from hybridc.compiler.tuning.options import Tuning

    how = Tuning(trials, budget, strategy, seed, workers, caches)
    if simulate is not None:
        return _simulate(simulate, models, how, plugin, as_json, quiet, verbose)
    if not models:
        raise click.UsageError("Missing argument 'MODEL...'.")
    how.check(plugin)
    check_apart({"--trace": plain["trace"]}, {"MODEL": models, "--plugin": plugin})
    shapes = shapes_of(models, shape)
    with progress(verbose, quiet, now_and_then=True) as tell:
        options = Options(**plain, plugins=plugin, progress=tell)
        _check(options)
        glance(models)
        outcome = _tuned(models, options, shapes, how)
    if as_json:
        emit_json(outcome.to_json())
    else:
        click.echo(outcome.text(explain))
    return INTERRUPTED if outcome.tuned.interrupted else 0


def _tuned(
    models: tuple[Path, ...], options: "Options", shapes: Shapes, how: "Tuning"
) -> "TuningOutcome":
    """Tune, with the monitor and trace that the options ask for."""
    from hybridc.compiler import driver
    from hybridc.compiler.monitoring.observe import observed
    from hybridc.compiler.tuning.options import Algorithms
    from hybridc.compiler.tuning.session import tune

    with observed(options) as seen:
        algorithms = Algorithms(how)
        unscheduled = (
            driver.unscheduled(model, options, shapes, seen.timeline, algorithms)
            for model in models
        )
        outcome = tune(unscheduled, options, how, seen.timeline, algorithms)
        return replace(outcome, monitored=seen.monitored())


def _check(options: "Options") -> None:
    """Raise InputError for bad options, before a model is read."""
    from hybridc.compiler.hardware import host
    from hybridc.compiler.log import connect
    from hybridc.compiler.monitoring import observe

    observe.check(options)
    host.check_threads(options.threads)
    if options.log is not None:
        connect.parse(options.log)


def _simulate(
    source: str,
    models: tuple[Path, ...],
    how: "Tuning",
    plugins: tuple[Path, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    from hybridc.compiler.tuning.simulation.compare import compare

    if models:
        raise click.UsageError("--simulate takes no MODEL: it replays what was measured.")
    with progress(verbose, quiet, now_and_then=True) as tell:
        found = compare(source, how, plugins, tell)
    if as_json:
        emit_json(found.to_json())
    else:
        click.echo(found.text())
    return 0
