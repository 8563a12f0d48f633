"""`hybridc tune`: measure the kernels of models at other points, and remember the best."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from hybridc.cli._options import (
    BUDGET,
    DTYPE,
    JSON,
    LOG,
    MONITOR,
    MONITOR_INTERVAL,
    PIPELINE,
    PLUGIN,
    SHAPE,
    TARGET,
    THREADS,
    TRACE,
    VERBOSE,
    Shapes,
    glance,
    shapes_of,
)
from hybridc.cli._output import clear_progress, emit_json, progress

if TYPE_CHECKING:
    from hybridc.compiler.configuration.plans import Options
    from hybridc.compiler.tuning.plan import Tuning
    from hybridc.compiler.tuning.session import Outcome

_INTERRUPTED = 130  # 128 + SIGINT


@click.command()
@click.argument("models", nargs=-1, metavar="MODEL...", type=click.Path(path_type=Path))
@click.option(
    "--simulate",
    metavar="LOG",
    help="Measure nothing: compare strategies on a recorded sweep (.npz) or a tuning log.",
)
@click.option(
    "--trials",
    default=32,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Points to measure for each kernel besides its default, on average; those that the log has"
    " count.",
)
@BUDGET
@click.option(
    "--strategy",
    metavar="NAME",
    default="evolutionary",
    show_default=True,
    help="What chooses the points, with its options: evolutionary{population=64}.",
)
@LOG
@click.option("--seed", type=int, metavar="N", help="Seed of the strategy; 0 if not set.")
@TARGET
@THREADS
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that build; by the cores if not set.",
)
@click.option(
    "--caches",
    type=click.Choice(["auto", "warm", "cold"]),
    metavar="STATE",
    default="auto",
    show_default=True,
    help="Measure with weights in the caches (warm), or in memory (cold); auto: as the model leaves"
    " them.",
)
@DTYPE
@SHAPE
@PIPELINE
@PLUGIN
@click.option("--explain", is_flag=True, help="Tell how well each kernel's times were predicted.")
@MONITOR
@MONITOR_INTERVAL
@TRACE
@JSON
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
    verbose: bool,
    **plain: Any,
) -> int:
    """Tune the kernels of models, and remember what was measured.

    Every point that is measured goes into the tuning log, where `hybridc compile` finds the best.
    Ctrl-C keeps what was measured; the same call goes on from there.  A kernel's answer is
    compared with that of the unscheduled kernel before it may win.
    """
    from hybridc.compiler.configuration.plans import Options
    from hybridc.compiler.tuning.plan import Tuning

    how = Tuning(trials, budget, strategy, seed, workers, caches)
    if simulate is not None:
        return _simulate(simulate, models, how, plugin, as_json, verbose)
    if not models:
        raise click.UsageError("Missing argument 'MODEL...'.")
    how.check(plugin)
    shapes = shapes_of(models, shape)
    options = Options(**plain, plugins=plugin, progress=progress(verbose))
    _check(options)
    glance(models)
    outcome = _tuned(models, options, shapes, how)
    if as_json:
        emit_json(outcome.to_json())
    else:
        click.echo(outcome.text(explain))
    return _INTERRUPTED if outcome.tuned.interrupted else 0


def _tuned(
    models: tuple[Path, ...], options: "Options", shapes: Shapes, how: "Tuning"
) -> "Outcome":
    """Tune, watched as the options ask for; from here on all that can be wrong is said."""
    from hybridc.compiler import driver
    from hybridc.compiler.monitoring.observe import observed
    from hybridc.compiler.tuning.plan import Algorithms
    from hybridc.compiler.tuning.session import tune

    try:
        with observed(options) as seen:
            algorithms = Algorithms(how)
            unscheduled = (
                driver.unscheduled(model, options, shapes, seen.timeline, algorithms)
                for model in models
            )
            outcome = tune(unscheduled, options, how, seen.timeline, algorithms)
            return replace(outcome, monitored=seen.monitored())
    finally:
        clear_progress()


def _check(options: "Options") -> None:
    """Raise what is wrong with the options, before a model is read."""
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
    verbose: bool,
) -> int:
    from hybridc.compiler.tuning.compare import compare

    if models:
        raise click.UsageError("--simulate takes no MODEL: it replays what was measured.")
    try:
        found = compare(source, how, plugins, progress(verbose))
    finally:
        clear_progress()
    if as_json:
        emit_json(found.to_json())
    else:
        click.echo(found.text())
    return 0
