"""`hybridc bench`: time an artifact beside other runtimes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hybridc.cli._options import (
    JSON,
    MONITOR,
    MONITOR_INTERVAL,
    PLUGIN,
    SHAPE,
    THREADS,
    VERBOSE,
    Shapes,
    glance,
    shapes_of,
)
from hybridc.cli._output import emit_json, progress
from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem import scratch

if TYPE_CHECKING:
    from hybridc.compiler.artifacts.artifact import Artifact
    from hybridc.compiler.measurement.bench import Comparison, Contender, Plan
    from hybridc.compiler.measurement.profile import Profile
    from hybridc.compiler.model import TensorSpec
    from hybridc.compiler.monitoring.observe import Monitoring

OURS = "hybridc"


@click.command()
@click.argument("source", metavar="ARTIFACT|MODEL", type=click.Path(path_type=Path))
@click.option(
    "--against",
    default="",
    metavar="ort,openvino,…",
    help="Peers to compare with: eager, inductor, openvino, ort.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The artifact's model, for the peers: .onnx, .pt2, or both (repeat the option).",
)
@SHAPE
@THREADS
@click.option(
    "--repeat",
    default=7,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of rounds.",
)
@click.option(
    "--seconds",
    default=0.5,
    show_default=True,
    type=click.FloatRange(min=0.0, min_open=True),
    metavar="SECONDS",
    help="How long each peer runs in each round.",
)
@click.option("--kernels", is_flag=True, help="Also time each kernel of the artifact.")
@PLUGIN
@MONITOR
@MONITOR_INTERVAL
@JSON
@VERBOSE
def command(
    source: Path,
    against: str,
    models: tuple[Path, ...],
    shape: tuple[str, ...],
    threads: int | None,
    repeat: int,
    seconds: float,
    kernels: bool,
    plugin: tuple[Path, ...],
    monitor: bool,
    monitor_interval: str,
    as_json: bool,
    verbose: bool,
) -> None:
    """Time an artifact beside other runtimes.

    A model is compiled first.  All run on the same random inputs, in turn, each in its own process.
    Ratios are relative to the artifact: a peer with 1.5 takes one and a half times as long.
    """
    from hybridc.compiler import pipeline, settings
    from hybridc.compiler.hardware import host
    from hybridc.compiler.measurement import bench
    from hybridc.compiler.monitoring import observe

    if not math.isfinite(seconds):
        raise InputError(f"--seconds must be a number of seconds, got {seconds}")
    compiled = source.suffix == ".hyb"
    shapes = shapes_of([] if compiled else [source], shape)
    glance([] if compiled else [source])
    count = threads or settings.requested_threads() or host.cores()
    with scratch.Folder() as folder, progress(verbose) as tell:
        watch = observe.Monitoring(monitor, monitor_interval, progress=tell)
        observe.check(watch)
        path = source if compiled else Path(folder) / f"{source.stem}.hyb"
        artifact = _open(source, path, shapes, count, plugin, tell)
        names = [OURS, *pipeline.split(against)]
        files = [path, *(_existing(model) for model in models)]
        files += [source] if source != path else []
        plan = bench.Plan(count, repeat, seconds)
        inputs = _inputs(artifact, shapes if compiled else {})
        comparison = _compared(inputs, bench.contenders(names, files, plugin), plan, watch)
        profile = _profile(artifact, count) if kernels else None
    _tell(comparison, profile, as_json)


def _tell(comparison: "Comparison", profile: "Profile | None", as_json: bool) -> None:
    if as_json:
        data: dict[str, Any] = comparison.to_json()
        emit_json(data | ({"profile": profile.to_json()} if profile else {}))
        return
    click.echo(comparison.text())
    if profile:
        click.echo(f"\n{profile.text()}")


def _compared(
    inputs: "Sequence[TensorSpec]",
    contenders: "tuple[Sequence[Contender], Mapping[str, str]]",
    plan: "Plan",
    watch: "Monitoring",
) -> "Comparison":
    """Time the contenders, with a monitor if one is asked for."""
    from hybridc.compiler.measurement import bench
    from hybridc.compiler.monitoring import observe

    taking_part, skipped = contenders
    with observe.observed(watch) as seen:
        comparison = bench.compare(
            taking_part,
            inputs,
            plan,
            skipped,
            progress=watch.progress,
            timeline=seen.timeline,
        )
        return replace(comparison, monitored=seen.monitored())


def _inputs(artifact: "Artifact", shapes: Shapes) -> "Sequence[TensorSpec]":
    """The inputs to measure on; open sizes are those of `shapes`, and are reported on stderr."""
    from hybridc.compiler import dims
    from hybridc.compiler.model import fixed_specs, open_dims

    inputs = fixed_specs(artifact.inputs, shapes)
    if open_dims(artifact.inputs):
        sizes = ", ".join(f"{spec.name} {dims.write(spec.shape)}" for spec in inputs)
        click.echo(f"measured at {sizes}; --shape gives other sizes", err=True)
    return inputs


def _open(
    source: Path,
    path: Path,
    shapes: Shapes,
    threads: int,
    plugins: tuple[Path, ...],
    tell: Callable[[str], None],
) -> "Artifact":
    """Load the artifact, or compile the model and save it at `path`."""
    from hybridc.compiler.artifacts.artifact import Artifact

    if source == path:
        return Artifact.load(path, plugins)
    from hybridc.compiler import driver
    from hybridc.compiler.configuration import plans

    options = plans.Options(threads=threads, plugins=plugins, progress=tell)
    artifact = driver.compile_source(source, options, shapes).artifact
    artifact.save(path)
    return artifact


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"--model {path}: no such file")
    return path


def _profile(artifact: "Artifact", threads: int) -> "Profile":
    from hybridc.compiler.measurement import profile
    from hybridc.compiler.runtime.session import InferenceSession

    return profile.on_this_host(InferenceSession(artifact, threads), threads)
