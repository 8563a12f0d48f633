"""`hybridc bisect`: the pass, then the kernel, that makes a model wrong or slow."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hybridc.cli._options import (
    ATOL,
    DTYPE,
    JSON,
    PIPELINE,
    PLUGIN,
    RTOL,
    SEED,
    SHAPE,
    TARGET,
    THREADS,
    VERBOSE,
    glance,
    shapes_of,
)
from hybridc.cli._output import clear_progress, emit_json, progress
from hybridc.compiler.files import check_place

if TYPE_CHECKING:
    from hybridc.compiler.configuration.plans import Options
    from hybridc.compiler.debugging.bisection import Culprit
    from hybridc.compiler.measurement.clock import Progress

FOUND = 1


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@SHAPE
@PIPELINE
@PLUGIN
@TARGET
@THREADS
@DTYPE
@click.option(
    "--slow", is_flag=True, help="Look for what makes calls slower, not for wrong answers."
)
@click.option(
    "--factor",
    default=1.5,
    show_default=True,
    type=click.FloatRange(min=1.0, min_open=True),
    metavar="NUMBER",
    help="How many times as long a call takes behind a pass that --slow looks for.",
)
@SEED
@RTOL
@ATOL
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the IR before the pass; MODEL.bisect.py beside MODEL if not set.",
)
@JSON
@VERBOSE
def command(
    model: Path,
    shape: tuple[str, ...],
    plugin: tuple[Path, ...],
    slow: bool,
    factor: float,
    output: Path | None,
    as_json: bool,
    verbose: bool,
    **plain: Any,
) -> int:
    """Find the pass and the kernel that make a model fail.

    That is the first pass, then the first kernel, behind which the answer is wrong or slow.  The
    module behind each pass is run as it stands and compared with the reference (ONNX Runtime
    or PyTorch).  What is found is written as IR text, with a call that shows it again.  Leaves with
    1 where something is found, with 0 where all is well.
    """
    shapes = shapes_of([model], shape)
    path = output or model.with_name(f"{model.stem}.bisect.py")
    check_place("-o", path, "model.bisect.py")
    glance([model])
    from hybridc.compiler.configuration import plans

    tell = progress(verbose)
    options = plans.Options(plugins=plugin, progress=tell, **plain)
    try:
        found = _search(model, options, shapes, factor if slow else None, tell)
    finally:
        clear_progress()
    if found is None:
        message = "no pass makes a call slower" if slow else "the answer is right behind every pass"
        _tell({"found": False, "said": message}, message, as_json)
        return 0
    data = {**_data(found), "ir": str(path), "reproduce": _call(found, path, options, slow)}
    _write(found, path)
    _tell(data, _text(data), as_json)
    return FOUND


def _search(
    model: Path, options: "Options", shapes: Any, factor: float | None, tell: "Progress"
) -> "Culprit | None":
    from hybridc.compiler import frontend
    from hybridc.compiler.assurance import calibration
    from hybridc.compiler.configuration import plans
    from hybridc.compiler.debugging import bisection, complaints
    from hybridc.compiler.instruments import NumericVerify

    plan = plans.plan(options)
    loaded = frontend.load(model, shapes=shapes)
    feeds = calibration.random_feeds(loaded.inputs, options.seed)
    found = bisection.run(loaded.module, plan, tell)
    if factor is not None:
        inputs = [feeds[0][spec.name] for spec in loaded.inputs]
        return bisection.first_slow(found, complaints.Slow(inputs, factor))
    wanted = [loaded.reference(feed) for feed in feeds]
    tolerances = (options.rtol, options.atol, plan.precision(loaded))
    verify = NumericVerify(loaded, feeds, wanted, *tolerances)
    return bisection.first_wrong(found, complaints.Wrong(verify))


def _data(found: "Culprit") -> dict[str, Any]:
    record = found.record
    point = {} if record is None else dict(record.point)
    return {
        "found": True,
        "pass": found.step,
        "after": found.after,
        "complaint": found.complaint,
        "kernel": found.kernel,
        "rule": None if record is None else record.rule,
        "point": point,
    }


def _call(found: "Culprit", path: Path, options: "Options", slow: bool) -> str | None:
    """The call that runs the pass on the IR again; None where no pass is at fault."""
    if found.step is None:
        return None
    words = ["hybridc", "opt", "--pipeline", found.step, *([] if slow else ["--check"])]
    words += ["--target", options.target] if options.target != "cpu" else []
    words += [word for file in options.plugins for word in ("--plugin", str(file))]
    return shlex.join([*words, str(path)])


def _write(found: "Culprit", path: Path) -> None:
    from hybridc.compiler import script
    from hybridc.compiler.debugging import complaints

    script.write_whole(complaints.alone(found), path)


def _text(data: dict[str, Any]) -> str:
    what = "the import" if data["pass"] is None else f"pass {data['pass']}"
    lines = [f"{what}: {data['complaint']}"]
    if data["after"]:
        lines.append(f"after: {data['after']}")
    if data["kernel"]:
        point = " ".join(f"{knob}={value}" for knob, value in data["point"].items())
        rule = f" (rule {data['rule']}{', ' if point else ''}{point})" if data["rule"] else ""
        lines.append(f"kernel: {data['kernel']}{rule}")
    lines.append(f"IR before it: {data['ir']}")
    if data["reproduce"]:
        lines.append(f"reproduce: {data['reproduce']}")
    return "\n".join(lines)


def _tell(data: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        emit_json(data)
    else:
        click.echo(text)
