"""`hybridc inspect`: show what a model or an artifact contains."""

from pathlib import Path
from typing import Any

import click

from hybridc.cli._options import JSON, LOG, SHAPE, TARGET, glance, shapes_of
from hybridc.cli._output import emit_json, progress
from hybridc.compiler.dims import Dim

_BYTES = ("bytes", "weight_bytes")
# Columns of an analysis that hold shares, and those that only `--json` shows: the text has the
# speedup instead.
_SHARES = {("operators", name) for name in ("flops", "bytes", "time")}
_HIDDEN = {("expected", "log_speedup"), ("expected", "sigma")}


@click.command()
@click.argument("source", metavar="ARTIFACT|MODEL", type=click.Path(path_type=Path))
@SHAPE
@TARGET
@LOG
@JSON
def command(
    source: Path, shape: tuple[str, ...], target: str, log: str | None, as_json: bool
) -> None:
    """Show what an artifact or a model contains.

    For an artifact: its manifest, certificate, kernels, and the regions that ONNX Runtime computes.
    For a model: its inputs, operators, parameters (each stored tensor once), FLOPs and unsupported
    operators; its kind of architecture, the forms in which its operators read weights, where its
    time should go on the target, and what each component of the compiler may gain.
    """
    data = _artifact(source) if source.suffix == ".hyb" else _model(source, shape, target, log)
    if as_json:
        emit_json(data)
    else:
        click.echo(_text(data))


def _artifact(path: Path) -> dict[str, Any]:
    """The manifest, certificate and kernels; loading checks every byte but runs nothing."""
    from hybridc.compiler.artifacts.artifact import Artifact

    artifact = Artifact.load(path)
    return {
        **artifact.manifest(),
        "bytes": path.stat().st_size,
        "weights": sum(array.size for array in artifact.weights.values()),
        "missing_on_this_host": list(artifact.lacking()),
        "memory": artifact.report.get("memory", {}),
        "agreement": artifact.report.get("agreement", []),
        "regions": [
            {
                "region": region.name,
                "operators": dict(region.operators),
                "inputs": [spec.describe() for spec in region.inputs],
                "outputs": [spec.describe() for spec in region.outputs],
                "bytes": len(region.proto),
            }
            for region in artifact.regions
        ],
        "kernels": [_without_refusals(kernel) for kernel in artifact.report.get("kernels", [])],
        **({"resources": artifact.report["resources"]} if "resources" in artifact.report else {}),
    }


def _without_refusals(kernel: dict[str, Any]) -> dict[str, Any]:
    """A kernel's record without the reasons of other rules, which fill pages in the report."""
    return {key: value for key, value in kernel.items() if key != "refused"}


def _model(path: Path, shape: tuple[str, ...], target: str, log: str | None) -> dict[str, Any]:
    shapes = shapes_of([path], shape)
    glance([path])
    with progress() as tell:
        tell("analysing the model")
        from hybridc.compiler.anatomy import inspection

        analysed = inspection.analyse_model(path, shapes, target=target, log=log)
        return {**inspection.inspect_model(path, shapes), "analysis": analysed}


def _text(data: dict[str, Any], indent: str = "") -> str:
    """Nested data as indented lines; a list of mappings with the same keys as a table."""
    return "\n".join(line for key, value in data.items() for line in _lines(key, value, indent))


def _lines(key: str, value: Any, indent: str) -> list[str]:
    from hybridc.compiler.text.tables import table
    from hybridc.compiler.text.units import format_duration, format_size

    inner = f"{indent}  "
    match value:
        case dict() if key == "memory" and all(isinstance(v, int) for v in value.values()):
            return [
                f"{indent}memory:",
                *(f"{inner}{k}: {format_size(v)}" for k, v in value.items()),
            ]
        case dict() if value:
            return [f"{indent}{key}:", _text(value, inner)]
        case [dict(), *_]:
            headers = list(dict.fromkeys(name for row in value for name in row))
            cells = {name: [_entry(key, name, row.get(name)) for row in value] for name in headers}
            shown = {name: each for name, each in cells.items() if set(each) != {"-"}}
            rows = list(zip(*shown.values(), strict=True))
            return [f"{indent}{key}:", table(list(shown), rows, inner)]
        case int() if key in _BYTES:
            return [f"{indent}{key}: {format_size(value)}"]
        case float() if key == "roofline_s":
            return [f"{indent}roofline: {format_duration(value)}"]
        case _:
            return [f"{indent}{key}: {_cell(value)}"]


def _entry(title: str, column: str, value: Any) -> str:
    """A cell of a table; `-` hides a column."""
    if column == "shape" and isinstance(value, list):
        return "x".join(map(_cell, value)) or "scalar"
    if (title, column) in _SHARES and isinstance(value, float):
        return f"{value:.1%}"
    return "-" if (title, column) in _HIDDEN else _cell(value)


def _cell(value: Any) -> str:
    match value:
        case {"size": str(name), "low": int(low), "high": high, "at": _}:
            return Dim(name, low, high, step=value.get("step", 1)).describe()
        case dict() if value:  # first, since the pattern {} takes every dict
            return " ".join(f"{key}={_cell(item)}" for key, item in value.items())
        case None | [] | {}:
            return "-"
        case list():
            sentences = any(isinstance(item, str) and " " in item for item in value)
            return ("; " if sentences else " ").join(map(_cell, value))
        case float():
            return f"{value:.6g}"
        case _:
            return str(value)
