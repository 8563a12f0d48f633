"""`hybridc bisect`: find the pass, then the kernel, that makes a model wrong or slow."""

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
    Shapes,
    glance,
    shapes_of,
)
from hybridc.cli._output import emit_json, progress
from hybridc.compiler.filesystem.files import check_place
from hybridc.compiler.text.units import format_point

if TYPE_CHECKING:
    from hybridc.compiler.configuration.plans import Options
    from hybridc.compiler.debugging.bisection import Culprit

FOUND = 1


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@SHAPE
@PIPELINE
@PLUGIN
@TARGET
@THREADS
@DTYPE
@click.option("--slow", is_flag=True, help="Look for a slowdown instead of a wrong answer.")
@click.option(
    "--factor",
    default=1.5,
    show_default=True,
    type=click.FloatRange(min=1.0, min_open=True),
    metavar="NUMBER",
    help="The slowdown that --slow looks for.",
)
@SEED
@RTOL
@ATOL
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the IR before the pass; default: MODEL.bisect.py beside MODEL.",
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
    """Find the pass and the kernel that make a model wrong or slow.

    Finds the first pass, then the first kernel, after which the answer is wrong or slow: the
    module is run as each pass leaves it, and compared with the reference (ONNX Runtime or
    PyTorch).  Writes the IR before that pass, and prints a command that reproduces the fault.
    Exits with 1 if a culprit is found, and with 0 if there is none.
    """
    shapes = shapes_of([model], shape)
    path = output or model.with_name(f"{model.stem}.bisect.py")
    check_place("-o", path, "model.bisect.py", {"MODEL": model})
    glance([model])
    from hybridc.compiler.configuration import plans

    with progress(verbose) as tell:
        options = plans.Options(plugins=plugin, progress=tell, **plain)
        found = _search(model, options, shapes, factor if slow else None)
    if found is None:
        message = "no pass makes a call slower" if slow else "the answer is right after every pass"
        _tell({"found": False, "said": message}, message, as_json)
        return 0
    data = {**_data(found), "ir": str(path), "reproduce": _call(found, path, options, slow)}
    _write(found, path)
    _tell(data, _text(data), as_json)
    return FOUND


def _search(
    model: Path, options: "Options", shapes: Shapes, factor: float | None
) -> "Culprit | None":
    from hybridc.compiler import frontend
    from hybridc.compiler.assurance import calibration
    from hybridc.compiler.assurance.verify import How
    from hybridc.compiler.configuration import plans
    from hybridc.compiler.debugging import bisection, complaints
    from hybridc.compiler.instruments import NumericVerify

    plan = plans.plan(options)
    loaded = frontend.load(model, shapes=shapes)
    feeds = calibration.random_feeds(loaded.inputs, options.seed)
    found = bisection.run(loaded.module, plan, options.progress)
    if factor is not None:
        inputs = [feeds[0][spec.name] for spec in loaded.inputs]
        return bisection.first_slow(found, complaints.Slow(inputs, factor))
    wanted = [loaded.reference(feed) for feed in feeds]
    how = How(options.rtol, options.atol, plan.precision(loaded))
    verify = NumericVerify(loaded, feeds, wanted, how, found.lowered)
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
    """The command that runs the pass on the IR again; None if the import is at fault."""
    if found.step is None:
        return None
    words = ["hybridc", "opt", "--pipeline", found.step, *([] if slow else ["--check"])]
    words += ["--target", options.target] if options.target != "cpu" else []
    words += [word for file in options.plugins for word in ("--plugin", str(file))]
    return shlex.join([*words, str(path)])


def _write(found: "Culprit", path: Path) -> None:
    from hybridc.compiler.debugging import complaints
    from hybridc.compiler.ir import script

    script.write_whole(complaints.alone(found), path)


def _text(data: dict[str, Any]) -> str:
    what = "the import" if data["pass"] is None else f"pass {data['pass']}"
    lines = [f"{what}: {data['complaint']}"]
    if data["after"]:
        lines.append(f"after: {data['after']}")
    if data["kernel"]:
        point = format_point(data["point"])
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
