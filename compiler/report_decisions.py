"""The cascade on an artifact's page: what each stage did to latency and accuracy, and its fate."""

from collections.abc import Mapping, Sequence
from typing import Any

from hybridc.compiler import page
from hybridc.compiler.decisions import KEPT
from hybridc.compiler.page import Element, element
from hybridc.compiler.report_charts import mapping, number
from hybridc.compiler.units import format_duration

Entry = Mapping[str, Any]

_KEPT = "kept"
# Metrics of which 1 is perfect: what is lacking is drawn, since 0.999 and 0.99 look alike.
_SHARES = ("cosine", "top1")
_MARK = 4.0  # width of the limit's line, of 1000


def decisions(found: object, contract: Entry) -> Element | None:
    """Waterfalls of latency and accuracy over the stages, beside the contract's limits.

    None where only one stage was tried, or the report holds nothing of the kind.
    """
    entries = [mapping(each) for each in found] if isinstance(found, list) else []
    if len(entries) < 2:
        return None
    return page.section(
        "Stages of the cascade",
        element(
            "p",
            "In order; each was verified and measured, and stayed only if it came nearer to the "
            "limits at the accuracy that is asked for. A bar ends where its stage came to, and "
            "what it took off or added is coloured.",
            class_="soft",
        ),
        _latencies(entries, number(contract.get("max_latency"))),
        _key(),
        *_accuracies(entries, mapping(contract.get("min_accuracy"))),
    )


def _latencies(entries: Sequence[Entry], limit: float) -> Element:
    values = [number(mapping(_measured(each).get("latency")).get("value")) for each in entries]
    shown = [format_duration(value) if value else "-" for value in values]
    head = f"latency, at most {format_duration(limit)}" if limit else "latency"
    return _chart(head, entries, values, shown, limit, reasons=True)


def _accuracies(entries: Sequence[Entry], limits: Entry) -> list[Element]:
    """A chart for each metric that any stage was measured by."""
    found = [mapping(_measured(each).get("accuracy")) for each in entries]
    charts: list[Element] = []
    for name in dict.fromkeys(metric for each in found for metric in each):
        told = [_value(mapping(each.get(name)).get("value")) for each in found]
        share = name in _SHARES
        values = [0.0 if t is None else _lack(t) if share else max(t, 0.0) for t in told]
        shown = ["-" if t is None else f"{t:.6g}" for t in told]
        bound = _value(limits.get(name))
        limit = 0.0 if bound is None else _lack(bound) if share else max(bound, 0.0)
        better = "" if bound is None else f", limit {bound:.6g}"
        title = f"{name}: what it lacks of 1{better}" if share else f"{name}{better}"
        charts.append(_chart(title, entries, values, shown, limit, reasons=False))
    return charts


def _chart(  # noqa: PLR0913, PLR0917 - what is drawn, what is written, and what is beside it
    title: str,
    entries: Sequence[Entry],
    values: Sequence[float],
    shown: Sequence[str],
    limit: float,
    reasons: bool,
) -> Element:
    longest = max([*values, limit]) or 1.0
    standing, rows = 0.0, [_head(title)]
    for entry, value, text in zip(entries, values, shown, strict=True):
        kept = entry.get("verdict") == _KEPT
        told = f"{entry.get('stage')}: {text}, {entry.get('verdict')}"
        bar = _bar(told, standing / longest, value / longest, kept)
        if limit:
            _draw_limit(bar, limit / longest)
        rows.append(_row(entry, bar, text, _reason(entry) if reasons else ""))
        standing = value if kept and value else standing
    return element("ol", *(element("li", row) for row in rows), class_="bars")


def _bar(told: str, before: float, now: float, kept: bool) -> Element:
    """What stays of the bar before, and what was taken off or added."""
    if not before or not now:
        return page.bar(told, ("bar" if kept else "rest", now))
    change = ("gain" if now < before else "loss") if kept else "rest"
    return page.bar(told, ("bar", min(before, now)), (change, abs(before - now)))


def _draw_limit(bar: Element, share: float) -> None:
    at = min(1000 * share, 1000 - _MARK)
    place = {"x": f"{at:.1f}", "y": "0", "width": f"{_MARK:.0f}", "height": "10"}
    bar.append(element("rect", class_="limit", **place))


def _key() -> Element:
    entries = (
        ("bar", "reached"),
        ("gain", "taken off"),
        ("loss", "added"),
        ("rest", "rolled back"),
        ("limit", "limit"),
    )
    items = [element("li", page.swatch(kind), word) for kind, word in entries]
    return element("ul", *items, class_="key")


def _head(title: str) -> Element:
    head = element("div", element("span", title, class_="title"), class_="row head")
    return head


def _row(entry: Entry, bar: Element, text: str, why: str) -> Element:
    line = element(
        "div",
        element("span", str(entry.get("stage")), class_="name"),
        bar,
        element("span", text, class_="number"),
        element("span", str(entry.get("verdict")), class_="number"),
        class_="row",
    )
    return element("div", line, element("div", why, class_="soft") if why else None)


def _reason(entry: Entry) -> str:
    told = [str(entry["reason"])] if entry.get("reason") else []
    if seconds := number(entry.get("seconds")):
        told.append(f"took {format_duration(seconds)}")
    return "; ".join(told)


def contributions(report: Entry) -> Element | None:
    """A bar for each component's share of the speed-up; None where the report has none."""
    found = report.get("component_results")
    entries = [mapping(each) for each in found] if isinstance(found, list) else []
    if not entries:
        return None
    rows = [_head("share of the whole speed-up, measured; speed-up")]
    for each in entries:
        share = number(each.get("contribution"))
        label = f"{each.get('component')}: {share:.0%}"
        factor = number(each.get("speedup"))
        rows.append(
            element(
                "div",
                element("span", str(each.get("component")), class_="name"),
                page.bar(label, ("bar", share)),
                element("span", f"{share:.0%}", class_="number"),
                element("span", f"{factor:.3g}x" if factor else "-", class_="number"),
                class_="row",
            )
        )
    scores = [
        f"{word} {number(report.get(name)):.2f}"
        for name, word in (
            ("hybrid_efficiency", "hybrid efficiency"),
            ("fusion_score", "fusion score"),
        )
        if report.get(name) is not None
    ]
    return page.section(
        "What each component contributed",
        element("ol", *(element("li", row) for row in rows), class_="bars"),
        element("p", "; ".join(scores), class_="soft") if scores else None,
    )


def _measured(entry: Entry) -> Entry:
    return mapping(entry.get("measured"))


def _value(value: object) -> float | None:
    """A number that a float can hold, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None


def _lack(value: float) -> float:
    return max(0.0, 1.0 - value)
