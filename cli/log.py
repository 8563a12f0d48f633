"""`hybridc log`: browse, exchange and clean up tuning logs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hybridc.cli import _log_text
from hybridc.cli._log_train import train
from hybridc.cli._named import NamedGroup, help_alone
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
    Shapes,
    glance,
    shapes_of,
)
from hybridc.cli._output import emit_json

if TYPE_CHECKING:
    from hybridc.compiler.log.explain import Explained
    from hybridc.compiler.log.store import Added, Faults, TuningLog

_DAY = 86400.0


@click.group(cls=NamedGroup, no_args_is_help=False, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Browse, exchange and clean up the tuning log."""
    help_alone(ctx)


command.add_command(train)


def _open(url: str | None, readonly: bool = True, plugins: tuple[Path, ...] = ()) -> "TuningLog":
    from hybridc.compiler.log import access

    return access.open_log(url, readonly=readonly, plugins=plugins)


@command.command("ls")
@LOG
@click.option("--workload", metavar="KEY", default="", help="Only this kernel.")
@click.option(
    "--limit",
    default=20,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="Number of records.",
)
@JSON
def _ls(log: str | None, workload: str, limit: int, as_json: bool) -> None:
    """List the latest records."""
    from hybridc.compiler.log import browse
    from hybridc.compiler.log.store import Faults

    with _open(log) as opened:
        key = browse.find(opened, workload, "workload").key if workload else None
        records = browse.latest(opened, key, limit, faults := Faults())
    if faults.count:
        click.echo(f"{opened.name}{_skipped(faults)}", err=True)
    if as_json:
        emit_json([{"key": record.key, **record.to_json()} for record in records])
    else:
        headers = ("record", "workload", "rule", "point", "verdict", "time", "caches")
        _print(headers, map(_log_text.row, records))


@command.command("show")
@click.argument("key")
@LOG
@JSON
def _show(key: str, log: str | None, as_json: bool) -> None:
    """Show what KEY stands for; its first digits suffice."""
    from hybridc.compiler.log import browse
    from hybridc.compiler.log.record import canonical

    with _open(log) as opened:
        found = browse.find(opened, key)
    data = {"kind": found.kind, "key": found.key, "data": found.data}
    emit_json(data) if as_json else click.echo(f"{found.kind} {found.key}\n{canonical(found.data)}")


@command.command("stats")
@LOG
@click.option("--model", type=MODEL_PATH, help="Report how much of this model the log covers.")
@SHAPE
@TARGET
@THREADS
@DTYPE
@PIPELINE
@PLUGIN
@JSON
def _stats(log: str | None, model: Path | None, as_json: bool, **options: Any) -> None:
    """Count the records, and show the best of each kernel.

    With --model, show how much of that model the log covers instead.
    """
    from hybridc.compiler.log import stats

    shapes = shapes_of([model] if model else [], options.pop("shape"))
    glance([model] if model else [])
    with _open(log, plugins=options["plugin"]) as opened:
        data = stats.summary(opened)
        if model is not None:
            data |= _coverage(_explain(opened, model, shapes, **options))
        else:
            data["best"] = [each.to_json() for each in stats.best(opened)]
    emit_json(data) if as_json else click.echo(_log_text.stats(data))


@command.command("explain-miss")
@click.argument("model", type=MODEL_PATH)
@LOG
@SHAPE
@TARGET
@THREADS
@DTYPE
@PIPELINE
@PLUGIN
@JSON
def _explain_miss(model: Path, log: str | None, as_json: bool, **options: Any) -> None:
    """Show which kernels of MODEL the log lacks, and why.

    For each of them, show what differs from the nearest record.
    """
    shapes = shapes_of([model], options.pop("shape"))
    glance([model])
    with _open(log, plugins=options["plugin"]) as opened:
        found = _explain(opened, model, shapes, **options)
    if as_json:
        emit_json([vars(each) for each in found])
        return
    rows = [
        (each.kernel, each.rule, each.answer, "; ".join(each.reasons))
        for each in sorted(found, key=lambda each: (each.answer != "miss", each.answer != "near"))
    ]
    _print(("kernel", "rule", "record", "why"), rows)


@command.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@LOG
@PLUGIN
@JSON
def _import(
    files: tuple[Path, ...], log: str | None, plugin: tuple[Path, ...], as_json: bool
) -> None:
    """Add the records of FILES.

    A file is .jsonl or .parquet; a directory is a database of TVM's.
    """
    from hybridc.compiler.log import exchange, unchecked

    for path in files:
        exchange.form_of(path)  # check all of them before the first is read
    with _open(log, False, plugin) as opened:
        _tell([(str(path), exchange.load(opened, path)) for path in files], as_json)
        waiting = sum(unchecked.waiting(opened).values())
    for line in () if as_json else _log_text.waiting(waiting):
        click.echo(line)


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@LOG
@JSON
def _export(file: Path, log: str | None, as_json: bool) -> None:
    """Write the log to FILE.

    The format is that of the name: .jsonl, .parquet, or a directory for a database of TVM's.
    """
    from hybridc.compiler.log import exchange

    with _open(log) as opened:
        count, faults = exchange.save(opened, file)
    if as_json:
        emit_json({"file": str(file), "records": count, **_faults(faults)})
    else:
        click.echo(f"{file}: {count} records{_skipped(faults)}")


@command.command("merge")
@click.argument("logs", nargs=-1, required=True)
@LOG
@PLUGIN
@JSON
def _merge(logs: tuple[str, ...], log: str | None, plugin: tuple[Path, ...], as_json: bool) -> None:
    """Add the records of other LOGS, given by path or URL.

    Order does not matter, and merging a log again adds nothing.
    """
    from contextlib import ExitStack

    from hybridc.compiler.log import exchange

    with ExitStack() as stack:
        others = [stack.enter_context(_open(other)) for other in logs]
        opened = stack.enter_context(_open(log, False, plugin))
        _tell([(other.name, exchange.merge(opened, other)) for other in others], as_json)


@command.command("gc")
@LOG
@click.option("--older-than", type=click.IntRange(min=0), metavar="DAYS", help="Remove older ones.")
@click.option("--max-size", metavar="1GB", help="Remove the oldest until the log is this small.")
@JSON
def _gc(log: str | None, older_than: int | None, max_size: str | None, as_json: bool) -> None:
    """Remove old records that cannot win.

    Expired claims, and descriptions that nothing refers to, are removed too.
    """
    from hybridc.compiler.log import upkeep
    from hybridc.compiler.text.units import format_size, parse_size

    oldest = None if older_than is None else older_than * _DAY
    largest = None if max_size is None else parse_size(max_size)
    _open(log).close()  # fails if there is no log, rather than create an empty one
    with _open(log, False) as opened:
        done = upkeep.collect(opened, oldest, largest)
    if as_json:
        emit_json(vars(done))
    else:
        sizes = f"{format_size(done.before)} before, {format_size(done.after)} after"
        click.echo(f"removed {done.records} records, {done.descriptions} descriptions; {sizes}")
        if largest is not None and done.after > largest:
            why = "records that may win or were wrong stay, and PostgreSQL frees space later"
            click.echo(f"still above {max_size}: {why}")


def _explain(opened: "TuningLog", model: Path, shapes: Shapes, **chosen: Any) -> "list[Explained]":
    from hybridc.compiler.configuration import plans
    from hybridc.compiler.log import explain

    options = plans.Options(
        target=chosen["target"],
        threads=chosen["threads"],
        dtype=chosen["dtype"],
        pipeline=chosen["pipeline"],
        plugins=chosen["plugin"],
    )
    return explain.explain(opened, model, options, shapes)


def _coverage(found: "list[Explained]") -> dict[str, Any]:
    """The share of a model that has records: of its kernels with a choice, and of their FLOPs."""
    wanted = [each for each in found if each.answer != "none needed"]
    hits = [each for each in wanted if each.answer == "hit"]
    total = sum(each.flops for each in wanted)
    return {
        "kernels": dict(Counter(each.answer for each in found)),
        "coverage": len(hits) / len(wanted) if wanted else 1.0,
        "coverage_by_flops": sum(each.flops for each in hits) / total if total else 1.0,
    }


def _print(headers: Sequence[str], rows: Any) -> None:
    from hybridc.compiler.text.tables import table

    click.echo(table(headers, list(rows)))


def _tell(added: "list[tuple[str, Added]]", as_json: bool) -> None:
    from hybridc.compiler.text.units import counted

    if as_json:
        emit_json(
            [
                {"from": name, "new": each.new, "known": each.known, **_faults(each.faults)}
                for name, each in added
            ]
        )
        return
    for name, each in added:
        new = counted(each.new, "new record")
        click.echo(f"{name}: {new}, {each.known} known{_skipped(each.faults)}")


def _faults(faults: "Faults") -> dict[str, Any]:
    return {"skipped": faults.count, "reasons": faults.reasons}


def _skipped(faults: "Faults") -> str:
    if not faults.count:
        return ""
    shown = "; ".join(dict.fromkeys(faults.reasons[:3]))
    return f", {faults.count} skipped: {shown}"
