"""`hybridc passes`: list the passes and pipelines, or explain one."""

from pathlib import Path
from typing import Any

import click

from hybridc.cli._options import JSON, PLUGIN
from hybridc.cli._output import emit_json


@click.command()
@click.argument("name", required=False)
@PLUGIN
@JSON
def command(name: str | None, plugin: tuple[Path, ...], as_json: bool) -> None:
    """List the passes and pipelines, or explain one."""
    from hybridc.compiler.pipelines import PIPELINES

    if name is None:
        data = _overview(plugin)
    elif name in PIPELINES:
        data = {"pipeline": name, "entries": [_entry(*entry) for entry in PIPELINES[name]]}
    else:
        data = _explain(name, plugin)
    if as_json:
        emit_json(data)
    else:
        click.echo(_text(data))


def _overview(files: tuple[Path, ...]) -> dict[str, Any]:
    from hybridc.compiler import pipeline
    from hybridc.compiler.pipelines import PIPELINES

    known = pipeline.passes(files).all()
    return {
        "passes": [{"name": name, "summary": _doc(kind).split("\n")[0]} for name, kind in known],
        "pipelines": {
            name: ",".join(spec for spec, _ in entries) for name, entries in PIPELINES.items()
        },
    }


def _explain(name: str, files: tuple[Path, ...]) -> dict[str, Any]:
    """One pass; raises PluginError with the nearest name if there is none of that name."""
    from hybridc.compiler import errors, pipeline, plugin
    from hybridc.compiler.pipelines import PIPELINES

    catalogue = pipeline.passes(files)
    if name not in catalogue.names():
        known = [*catalogue.names(), *PIPELINES]
        raise errors.PluginError(
            f"no pass or pipeline is named {name!r}; {errors.hint(name, known)}"
        )
    kind = catalogue.load(name)
    options = [
        {"name": option, "type": wanted, "default": default}
        for option, wanted, default in plugin.options(kind)
    ]
    return {"pass": name, "doc": _doc(kind), "options": options}


def _entry(spec: str, reason: str) -> dict[str, str]:
    return {"pass": spec, "reason": reason}


def _doc(kind: type) -> str:
    import inspect

    return inspect.getdoc(kind) or "No description."


def _text(data: dict[str, Any]) -> str:
    from hybridc.compiler.text.tables import table

    if "passes" in data:
        rows = [(entry["name"], entry["summary"]) for entry in data["passes"]]
        pipelines = [f"{name} = {text}" for name, text in data["pipelines"].items()]
        return "\n".join([table(("pass", "what it does"), rows), "", "pipelines:", *pipelines])
    if "entries" in data:
        rows = [(entry["pass"], entry["reason"]) for entry in data["entries"]]
        return table((data["pipeline"], "why it is here"), rows)
    columns = ("name", "type", "default")
    cells = [[str(option[column]) for column in columns] for option in data["options"]]
    options = table(("option", "type", "default"), cells) if cells else "It has no options."
    return f"{data['pass']}\n\n{data['doc']}\n\n{options}"
