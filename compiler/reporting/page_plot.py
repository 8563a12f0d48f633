"""Curves over time for a page: the drawing stretches with the window, the text does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from hybridc.compiler.reporting.page import Child, Element, clean, element, swatch
from hybridc.compiler.text.units import format_duration

Points = Sequence[tuple[float, float]]
COLOURS = 7  # classes f0 to f6 of the page's style
_WIDTH, _HEIGHT = 1000.0, 100.0


@dataclass(frozen=True)
class Curve:
    """A line: its colour's number, whose it is, and its points in seconds and the plot's unit."""

    colour: int
    name: str
    points: Points


@dataclass(frozen=True)
class Span:
    """A step that is marked under a plot; steps of one name share a colour."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Axes:
    """What the plots of one section share: the seconds that they show, and the steps in them."""

    seconds: float
    spans: Sequence[Span] = ()

    def colours(self) -> Mapping[str, int]:
        """The colour of each step's name; the last one is shared by those that took the least."""
        spent = self.spent()
        longest = sorted(spent, key=spent.__getitem__, reverse=True)[: COLOURS - 1]
        own = {name: index for index, name in enumerate(name for name in spent if name in longest)}
        return {name: own.get(name, COLOURS - 1) for name in spent}

    def spent(self) -> Mapping[str, float]:
        """The seconds of all steps of a name."""
        found: dict[str, float] = {}
        for span in self.spans:
            found[span.name] = found.get(span.name, 0.0) + span.end - span.start
        return found


def nice(value: float) -> float:
    """The least of 1, 2, 2.5, 5 times a power of ten that is not below a value: where axes end."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


def lines(
    title: str, told: str, axes: Axes, curves: Sequence[Curve], labels: tuple[str, str, str, float]
) -> Element:
    """A plot of curves.

    `told` says in words what they show; `labels` are those of the axis from the top down, and the
    value at the top.
    """
    *words, top = labels
    drawing = _canvas(f"{title}: {told}")
    for share in (0.0, 0.5, 1.0):
        y = f"{_HEIGHT * share:.1f}"
        drawing.append(element("line", class_="grid", x1="0", x2=f"{_WIDTH:.0f}", y1=y, y2=y))
    for curve in curves:
        place = " ".join(
            f"{_WIDTH * min(when / axes.seconds, 1.0):.1f},{_HEIGHT * (1 - value / top):.1f}"
            for when, value in curve.points
        )
        drawing.append(element("polyline", class_=f"line l{curve.colour}", points=place))
    key = [element("li", swatch(f"f{curve.colour}"), curve.name) for curve in curves]
    legend = element("ul", *key, class_="key") if len(curves) > 1 else None
    return _figure(title, axes, drawing, [str(word) for word in words], legend)


def heat(title: str, told: str, axes: Axes, rows: Sequence[tuple[str, Points]]) -> Element:
    """A plot of shares (0 to 1), a row for each name: the stronger the colour, the greater."""
    drawing = _canvas(f"{title}: {told}")
    height = _HEIGHT / len(rows)
    for index, (_, points) in enumerate(rows):
        start = 0.0
        for when, share in points:
            end = _WIDTH * min(when / axes.seconds, 1.0)
            cell = {"x": f"{start:.1f}", "width": f"{end - start:.1f}"}
            cell |= {"y": f"{index * height:.2f}", "height": f"{height * 0.92:.2f}"}
            opacity = {"fill-opacity": f"{min(max(share, 0.0), 1.0):.2f}"}
            drawing.append(Element("rect", {"class": "bar", **cell, **opacity}))
            start = end
    ends = [rows[0][0], rows[-1][0]] if len(rows) > 1 else [rows[0][0]]
    return _figure(title, axes, drawing, ends, None)


def legend(axes: Axes) -> Element | None:
    """The steps by colour, each with its time."""
    colours = axes.colours()
    items = [
        element("li", swatch(f"f{colours[name]}"), f"{name} {format_duration(seconds)}")
        for name, seconds in axes.spent().items()
    ]
    return element("ul", *items, class_="key") if items else None


def _canvas(label: str) -> Element:
    drawing = element("svg", viewBox="0 0 1000 100", preserveAspectRatio="none", role="img")
    drawing.set("aria-label", clean(label))
    return drawing


def _figure(title: str, axes: Axes, drawing: Element, labels: Sequence[str], key: Child) -> Element:
    middle = format_duration(axes.seconds / 2)
    return element(
        "figure",
        element("figcaption", title),
        element(
            "div",
            element("div", *(element("span", label) for label in labels), class_="y"),
            drawing,
            element("span"),
            _strip(axes),
            element("span"),
            element(
                "div",
                element("span", "0 s"),
                element("span", middle),
                element("span", format_duration(axes.seconds)),
                class_="x",
            ),
            class_="axes",
        ),
        key,
        class_="plot",
    )


def _strip(axes: Axes) -> Element:
    """The steps as a band under a plot."""
    drawing = element("svg", viewBox="0 0 1000 10", preserveAspectRatio="none", class_="strip")
    drawing.set("aria-hidden", "true")  # the legend has it in words
    colours = axes.colours()
    for span in axes.spans:
        start, end = (_WIDTH * min(max(t / axes.seconds, 0.0), 1.0) for t in (span.start, span.end))
        place = {"x": f"{start:.1f}", "width": f"{max(end - start, 1.0):.1f}"}
        drawing.append(element("rect", class_=f"f{colours[span.name]}", height="10", **place))
    return drawing


def grouped(rows: Sequence[tuple[str, Points]], most: int) -> list[tuple[str, Points]]:
    """At most so many rows: neighbours are put together, and show their mean."""
    size = ceil(len(rows) / most)
    if size < 2:
        return list(rows)
    found: list[tuple[str, Points]] = []
    for at in range(0, len(rows), size):
        part = rows[at : at + size]
        means = [
            (cells[0][0], sum(value for _, value in cells) / len(cells))
            for cells in zip(*(points for _, points in part), strict=False)
        ]
        found.append((f"{part[0][0]}-{part[-1][0].rpartition(' ')[2]}", means))
    return found
