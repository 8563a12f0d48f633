"""The cascade on an artifact's page: what each stage did to latency and accuracy, and its fate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from hybridc.compiler.reporting import page
from hybridc.compiler.reporting.page import Element, element
from hybridc.compiler.reporting.report_charts import mapping, number
from hybridc.compiler.text.units import format_duration

Entry = Mapping[str, Any]

_KEPT = "kept"
_UNKNOWN = "-"  # what nobody measured
# Metrics of which 1 is perfect: what is lacking is drawn, since 0.999 and 0.99 look alike.
_SHARES = ("cosine", "top1")
_ERRORS = ("max-abs", "max-rel")  # less is better


def decisions(found: object, contract: Entry) -> Element | None:
    """Waterfalls of latency and accuracy over the stages, beside the contract's limits.

    None if only one stage was tried, or the report holds nothing of the kind.
    """
    entries = [mapping(each) for each in found] if isinstance(found, list) else []
    if len(entries) < 2:
        return None
    return page.section(
        "Stages of the cascade",
        element(
            "p",
            "In order; each was verified and measured, and kept only if it came nearer to the "
            "limits at the required accuracy. A bar ends at its stage's value; the part that the "
            "stage changed is coloured.",
            class_="soft",
        ),
        _latencies(entries, contract),
        _key(),
        *_accuracies(entries, mapping(contract.get("min_accuracy"))),
    )


def _latencies(entries: Sequence[Entry], contract: Entry) -> Element:
    limit, percentile = number(contract.get("max_latency")), contract.get("latency_percentile")
    values = [number(mapping(_measured(each).get("latency")).get("value")) for each in entries]
    bars = [
        _Bar(each, value, format_duration(value) if value else _UNKNOWN, _reason(each))
        for each, value in zip(entries, values, strict=True)
    ]
    title = "Latency" if percentile is None else f"p{number(percentile):g} latency"
    title += f", at most {format_duration(limit)}" if limit else ""
    return _chart(title, bars, limit)


def _accuracies(entries: Sequence[Entry], limits: Entry) -> list[Element]:
    """A chart for each metric that any stage was measured by."""
    found = [mapping(_measured(each).get("accuracy")) for each in entries]
    return [
        _accuracy(name, entries, [mapping(each.get(name)) for each in found], limits.get(name))
        for name in dict.fromkeys(metric for each in found for metric in each)
    ]


def _accuracy(
    name: str, entries: Sequence[Entry], found: Sequence[Entry], bound: object
) -> Element:
    limit = _value(bound)
    values = [x for x in (limit, *(_value(each.get("value")) for each in found)) if x is not None]
    most = max(filter(isfinite, values), default=1.0)  # nothing is drawn longer

    def drawn(value: float) -> float:
        return max(0.0, 1.0 - value if name in _SHARES else min(value, most))

    known = [
        (each, value)
        for each, told in zip(entries, found, strict=True)
        if (value := _value(told.get("value"))) is not None
    ]
    unit = " dB" if name == "snr" else ""
    digits = ".6g" if name in _SHARES else ".4g"  # of more, errors would not fit beside the bar
    bars = [_Bar(each, drawn(value), f"{value:{digits}}{unit}", "") for each, value in known]
    title = f"Accuracy by {name}" + (", drawn as the distance from 1" if name in _SHARES else "")
    title += "" if limit is None else f", limit {limit:.6g}{unit}"
    less = name in (*_SHARES, *_ERRORS)
    return _chart(title, bars, 0.0 if limit is None else drawn(limit), less_is_better=less)


@dataclass(frozen=True)
class _Bar:
    """One stage in a chart: what is drawn, what is written, and why it came so."""

    entry: Entry
    value: float
    text: str
    why: str


def _chart(
    title: str, bars: Sequence[_Bar], limit: float, *, less_is_better: bool = True
) -> Element:
    longest = max([limit, *(each.value for each in bars)]) or 1.0
    standing, rows = 0.0, [_head(title)]
    for each in bars:
        kept = each.entry.get("verdict") == _KEPT
        told = f"{each.entry.get('stage')}: {each.text}, {each.entry.get('verdict')}"
        better = (each.value < standing) is less_is_better
        kind = ("gain" if better else "loss") if kept else "rest"
        bar = _draw(told, standing / longest, each.value / longest, kind)
        if limit and each.text != _UNKNOWN:  # beside nothing it would look like a short bar
            _draw_limit(bar, limit / longest)
        rows.append(_row(each, bar))
        standing = each.value if kept and each.value else standing
    return element("ol", *(element("li", row) for row in rows), class_="bars stages")


def _draw(told: str, before: float, now: float, kind: str) -> Element:
    """What stays of the bar before, and what was taken off or added."""
    if not before or not now:
        return page.bar(told, ("rest" if kind == "rest" else "bar", now))
    if before == now:
        return page.bar(told, ("bar", now))
    return page.bar(told, ("bar", min(before, now)), (kind, abs(before - now)))


def _draw_limit(bar: Element, share: float) -> None:
    x = f"{min(1000 * share, 999.0):.1f}"
    bar.append(element("line", class_="limit", x1=x, x2=x, y1="0", y2="10"))


def _key() -> Element:
    entries = (
        ("bar", "reached"),
        ("gain", "better"),
        ("loss", "worse"),
        ("rest", "rolled back"),
        ("limit", "limit"),
    )
    items = [element("li", page.swatch(kind), word) for kind, word in entries]
    return element("ul", *items, class_="key")


def _head(title: str) -> Element:
    return element("div", element("span", title, class_="title"), class_="row head")


def _row(each: _Bar, bar: Element) -> Element:
    line = element(
        "div",
        element("span", str(each.entry.get("stage")), class_="name"),
        bar,
        element("span", each.text, class_="number"),
        element("span", str(each.entry.get("verdict")), class_="number"),
        class_="row",
    )
    return element("div", line, element("div", each.why, class_="soft") if each.why else None)


def _reason(entry: Entry) -> str:
    told = [str(entry["reason"])] if entry.get("reason") else []
    if seconds := number(entry.get("seconds")):
        told.append(f"took {format_duration(seconds)}")
    return "; ".join(told)


def contributions(report: Entry) -> Element | None:
    """A bar for each component's share of the speed-up; None if the report has none."""
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
        element("ol", *(element("li", row) for row in rows), class_="bars stages"),
        element("p", "; ".join(scores), class_="soft") if scores else None,
    )


def _measured(entry: Entry) -> Entry:
    return mapping(entry.get("measured"))


def _value(value: object) -> float | None:
    """A number that a float can hold, or an infinity as `Estimate` writes it, else None."""
    if value in ("inf", "-inf"):
        return float(str(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None
