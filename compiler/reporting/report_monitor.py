"""What a monitor saw, on a page: curves by group, the steps of the work under each of them."""

from collections.abc import Sequence

from hybridc.compiler.monitoring.monitored import Monitored, Series, show
from hybridc.compiler.reporting import page, page_plot
from hybridc.compiler.reporting.page import Element, element
from hybridc.compiler.reporting.page_plot import Axes, Curve, Span

_ROWS = 16  # of a heat map: cores beyond are shown in groups
_CELLS = 80  # of a row


def monitor(seen: Monitored | None) -> Element | None:
    """The section; None if nothing was monitored."""
    if seen is None or not seen.series or not seen.seconds:
        return None
    axes = Axes(seen.seconds, [Span(mark.name, mark.start, mark.end) for mark in seen.marks])
    groups: dict[str, list[Series]] = {}
    for series in seen.series:
        groups.setdefault(series.channel.group, []).append(series)
    return page.section(
        "What the machine did meanwhile",
        element("p", f"Since the start; {seen.sentence()}.", class_="soft"),
        *(_plot(name, series, axes) for name, series in groups.items()),
        page_plot.legend(axes),
        _figures(seen),
        *(element("p", f"energy of {n}: {j:.4g} J") for n, j in seen.joules.items()),
        *(
            element("p", f"Not monitored: {n}: {why}", class_="soft")
            for n, why in seen.absent.items()
        ),
    )


def _plot(name: str, group: Sequence[Series], axes: Axes) -> Element:
    if name == "cores":
        return _cores(group, axes)
    unit = group[0].channel.unit
    top = _top(group)
    labels = (show(top, unit), show(top / 2, unit), show(0.0, unit), top)
    curves = [Curve(i, s.channel.name, s.points()) for i, s in enumerate(group)]
    told = "; ".join(
        f"{s.channel.name} {s.show(s.low)} to {s.show(s.high)}, mean {s.show(s.mean)}"
        for s in group
    )
    title = f"{name} ({'bytes' if unit == 'B' else unit})"
    return page_plot.lines(title, told, axes, curves, labels)


def _top(group: Sequence[Series]) -> float:
    """Where the axis ends: at what cannot be exceeded, if the curves come near it."""
    high = max(series.high for series in group)
    most = group[0].channel.most
    round_top = page_plot.nice(high)
    return most if most is not None and (high > most / 2 or round_top > most) else round_top


def _cores(group: Sequence[Series], axes: Axes) -> Element:
    rows = [(s.channel.name, [(t, v / 100) for t, v in s.points(_CELLS)]) for s in group]
    busiest = max(group, key=lambda series: series.mean)
    told = (
        f"{len(group)} cores, busy from {min(s.mean for s in group):.0f} % to "
        f"{busiest.mean:.0f} % of the time"
    )
    title = "cores (busy share: the stronger the colour, the busier)"
    return page_plot.heat(title, told, axes, page_plot.grouped(rows, _ROWS))


def _figures(seen: Monitored) -> Element:
    """All series in figures, for those who do not see the curves; cores are told together."""
    rows = [
        (s.channel.group, s.channel.name, *(s.show(value) for value in s.figures().values()))
        for s in seen.series
        if s.channel.group != "cores"
    ]
    return page.table(("", "", "min", "mean", "max"), rows)
