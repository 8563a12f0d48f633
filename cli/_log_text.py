"""The output of `hybridc log` as text."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridc.compiler.log.record import Record

_KEY = 12  # digits of a key that are shown
# Conditions of a measurement, shown as columns where they vary.
_SERIES = ("target", "toolchain", "mode")


def stats(data: dict[str, Any]) -> str:
    """Counts of records, then the best point of each kernel or the coverage of a model."""
    from hybridc.compiler.text.tables import table
    from hybridc.compiler.text.units import format_size

    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in data["verdicts"].items())
    kinds = ", ".join(
        f"{data[f'{kind}s']} {kind}{'' if data[f'{kind}s'] == 1 else 's'}"
        for kind in ("workload", "target", "toolchain")
    )
    lines = [
        f"{data['log']}: {data['records']} records ({verdicts or 'none'}), {kinds},"
        f" {format_size(data['bytes'])}"
    ]
    lines += waiting(data["waiting"])
    if "kernels" in data:
        counts = ", ".join(f"{count} {answer}" for answer, count in data["kernels"].items())
        share = f"{data['coverage']:.0%} of those with a choice, {data['coverage_by_flops']:.0%}"
        lines.append(f"kernels of the model: {counts}; hits are {share} of their arithmetic")
    best = data.get("best", ())
    varying = [name for name in _SERIES if len({each[name] for each in best}) > 1]
    rows = [(*_best_row(each), *(each[name][:_KEY] for name in varying)) for each in best]
    headers = (
        "workload",
        "arguments",
        "best rule",
        "point",
        "time",
        "choices",
        "records",
        *varying,
    )
    return "\n".join([*lines, *([table(headers, rows)] if rows else [])])


def waiting(count: int) -> list[str]:
    """A line on the records that nobody checked, if there are any."""
    told = f"unchecked records awaiting a tuning: {count}; none wins before `hybridc tune`"
    return [f"{told} has measured its point and compared its answer"] if count else []


def _best_row(each: dict[str, Any]) -> tuple[str, ...]:
    """The fastest point of a kernel under some conditions."""
    from hybridc.compiler.text.units import format_duration, format_point

    return (
        *(
            each["workload"][:_KEY],
            " ".join(each["arguments"]),
            each["rule"],
            format_point(each["point"]),
        ),
        format_duration(each["seconds"]) if each["seconds"] else "-",
        *(str(each["choices"]), str(each["records"])),
    )


def row(record: "Record") -> tuple[str, ...]:
    """A record, as a row of a table."""
    import statistics

    from hybridc.compiler.text.units import format_duration, format_point

    time = format_duration(statistics.median(record.seconds)) if record.seconds else "-"
    keys = record.key[:_KEY], record.workload[:_KEY]
    return (
        *keys,
        record.rule,
        format_point(record.to_json()["point"]),
        str(record.verdict),
        time,
        record.mode,
    )
