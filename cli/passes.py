"""`hybridc passes`: list the plug-ins of a kind (passes, unless told), or explain one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hybridc.cli._options import JSON, PLUGIN
from hybridc.cli._output import emit_json
from hybridc.cli._plugin_kinds import OTHERS, of

if TYPE_CHECKING:
    from hybridc.compiler.plugin import Catalogue


@click.command()
@click.argument("name", required=False)
@click.option(
    "--kind",
    type=click.Choice(("passes", *OTHERS)),
    default="passes",
    show_default=True,
    metavar="KIND",
    help=f"What to list, or what NAME is: passes, {', '.join(OTHERS)}.",
)
@PLUGIN
@JSON
def command(name: str | None, kind: str, plugin: tuple[Path, ...], as_json: bool) -> None:
    """List the passes and pipelines, or explain one.

    With --kind, plug-ins of another kind.
    """
    from hybridc.compiler.pipelines import PIPELINES

    if kind in OTHERS:
        data = _listed(kind, plugin) if name is None else _explained(of(kind, plugin), name)
    elif name is None:
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
    from hybridc.compiler import errors, pipeline
    from hybridc.compiler.pipelines import PIPELINES

    catalogue = pipeline.passes(files)
    if name not in catalogue.names():
        known = [*catalogue.names(), *PIPELINES]
        raise errors.PluginError(
            f"no pass or pipeline is named {name!r}; {errors.hint(name, known)}"
        )
    return {"pass": name, **_described(catalogue.load(name))}


def _listed(kind: str, files: tuple[Path, ...]) -> dict[str, Any]:
    """The plug-ins of a kind other than passes."""
    known = of(kind, files).all()
    found = [{"name": name, "summary": _doc(each).split("\n")[0]} for name, each in known]
    return {"kind": kind, "plugins": found}


def _explained(catalogue: "Catalogue[Any]", name: str) -> dict[str, Any]:
    """One plug-in; raises PluginError with the nearest name if there is none of that name."""
    return {"name": name, **_described(catalogue.load(name))}


def _described(kind: type) -> dict[str, Any]:
    from hybridc.compiler import plugin

    options = [
        {"name": option, "type": wanted, "default": default}
        for option, wanted, default in plugin.options(kind)
    ]
    return {"doc": _doc(kind), "options": options}


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
    if "plugins" in data:
        rows = [(entry["name"], entry["summary"]) for entry in data["plugins"]]
        return table((data["kind"], "what it is"), rows)
    if "entries" in data:
        rows = [(entry["pass"], entry["reason"]) for entry in data["entries"]]
        return table((data["pipeline"], "why it is here"), rows)
    columns = ("name", "type", "default")
    cells = [[str(option[column]) for column in columns] for option in data["options"]]
    options = table(("option", "type", "default"), cells) if cells else "It has no options."
    name = data.get("pass") or data["name"]
    return f"{name}\n\n{data['doc']}\n\n{options}"
