"""The cascade on an artifact's page: each stage, the time it came to, and what became of it."""

from collections.abc import Mapping
from typing import Any

from hybridc.compiler import page
from hybridc.compiler.decisions import KEPT
from hybridc.compiler.page import Element, element
from hybridc.compiler.report_charts import mapping, number
from hybridc.compiler.units import format_duration


def decisions(found: object, limit: float) -> Element | None:
    """A bar for each stage's latency, beside the limit in seconds (0: there is none).

    None where only one stage was tried, or the report holds nothing of the kind.
    """
    entries = [mapping(each) for each in found] if isinstance(found, list) else []
    if len(entries) < 2:
        return None
    times = [_latency(each) for each in entries]
    longest = max([*times, limit]) or 1.0
    rows = [_row(each, seconds, longest) for each, seconds in zip(entries, times, strict=True)]
    if limit:
        bar = page.bar(format_duration(limit), ("f2", limit / longest))
        rows.append(_line("limit", bar, format_duration(limit), ""))
    head = _line("stage", None, "latency", "")
    head.set("class", "row head")
    return page.section(
        "Stages of the cascade",
        element(
            "p",
            "In order; each was verified and measured, and stayed only if it came nearer to the "
            "limits at the accuracy that is asked for.",
            class_="soft",
        ),
        element("ol", *(element("li", row) for row in [head, *rows]), class_="bars"),
    )


def _row(entry: Mapping[str, Any], seconds: float, longest: float) -> Element:
    kept = entry.get("verdict") == KEPT
    bar = page.bar(format_duration(seconds), ("bar" if kept else "rest", seconds / longest))
    time = format_duration(seconds) if seconds else "-"
    line = _line(str(entry.get("stage")), bar, time, str(entry.get("verdict")))
    told = [str(entry["reason"])] if entry.get("reason") else []
    accuracy = mapping(mapping(entry.get("measured")).get("accuracy"))
    told += [f"{name} {number(mapping(v).get('value')):.6g}" for name, v in accuracy.items()]
    details = element("div", "; ".join(told), class_="soft") if told else None
    return element("div", line, details)


def _line(name: str, bar: Element | None, time: str, verdict: str) -> Element:
    return element(
        "div",
        element("span", name, class_="name"),
        bar if bar is not None else element("span"),
        element("span", time, class_="number"),
        element("span", verdict, class_="number"),
        class_="row",
    )


def _latency(entry: Mapping[str, Any]) -> float:
    return number(mapping(mapping(entry.get("measured")).get("latency")).get("value"))
